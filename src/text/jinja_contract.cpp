// jinja_contract.cpp - binds arguments to parameters, and finds rows of the tables.
#include "src/text/jinja_contract.h"

#include <algorithm>
#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {

JinjaSignature::JinjaSignature(const char* text) {
    std::string_view left = text;
    while (!left.empty()) {
        const size_t comma = std::min(left.find(','), left.size());
        std::string_view word = left.substr(0, comma);
        left.remove_prefix(std::min(comma + 1, left.size()));
        while (word.starts_with(' ')) word.remove_prefix(1);
        if (word == "*") rest = true;
        else if (word == "**") keywords = true;
        else if (word == "/") for (Parameter& p : parameters) p.by_name = false;
        else if (word.ends_with('='))
            parameters.push_back({std::string(word.substr(0, word.size() - 1)), false, true, false});
        else if (word.ends_with('!'))
            parameters.push_back({std::string(word.substr(0, word.size() - 1)), false, true, true});
        else parameters.push_back({std::string(word), true, true, false});
    }
}

int64_t JinjaCall::whole(size_t k, int64_t otherwise) const {
    if (!values[k]) return otherwise;
    if (!values[k]->is_whole())
        error(str("argument ", k + 1, " must be an integer, is of type ", values[k]->type_name()));
    return values[k]->integer();
}
const std::string& JinjaCall::string(size_t k) const {
    if (!values[k] || !values[k]->is_string())
        error(
            str("argument ", k + 1, " must be a text", values[k] ? str(", is of type ", values[k]->type_name()) : ""));
    return values[k]->str();
}

void jinja_bind(JinjaCall& call, const JinjaSignature& signature, const JinjaArgs& args) {
    const std::vector<JinjaSignature::Parameter>& parameters = signature.parameters;
    call.values.resize(parameters.size());
    size_t position = 0;
    for (size_t k = 0; k < args.values.size(); ++k) {
        const std::string& name = args.names[k];
        size_t to = parameters.size();
        if (name.empty()) to = position++;
        else
            for (size_t p = 0; p < parameters.size(); ++p)
                if (parameters[p].by_name && parameters[p].name == name) to = p;
        if (to < parameters.size()) {
            if (parameters[to].unread) call.error(str("parameter '", parameters[to].name, "' is not supported"));
            if (call.values[to]) call.error(str("parameter '", parameters[to].name, "' is given twice"));
            call.values[to] = args.values[k];
        } else if (name.empty()) {
            if (!signature.rest) call.error(str("takes at most ", parameters.size(), " arguments"));
            call.rest.push_back(args.values[k]);
        } else {
            if (!signature.keywords) call.error(str("has no parameter '", name, "'"));
            call.keywords.emplace_back(name, args.values[k]);
        }
    }
    for (size_t p = 0; p < parameters.size(); ++p)
        if (parameters[p].required && !call.values[p])
            call.error(str("parameter '", parameters[p].name, "' is missing"));
}

const JinjaBuiltin* jinja_row(const JinjaTable& table, std::string_view name) {
    const auto row = std::find_if(table.begin(), table.end(), [&](const JinjaBuiltin& r) { return r.name == name; });
    return row == table.end() ? nullptr : &*row;
}

JinjaValue jinja_run_row(JinjaContext& cx, const JinjaBuiltin& row, std::string_view kind, const JinjaValue& self,
                         const JinjaArgs& args) {
    JinjaCall call{cx, self, str(kind, " '", row.name, "'"), {}, {}, {}};
    if (!row.run) call.error("is not supported");
    jinja_bind(call, row.signature, args);
    return row.run(call);
}

namespace jinja_contract_room {

inline const JinjaBuiltin* filter_row(std::string_view name) {
    static const std::unordered_map<std::string_view, const JinjaBuiltin*> rows = [] {
        std::unordered_map<std::string_view, const JinjaBuiltin*> all;
        for (const JinjaTable* table : {&jinja_text_filters(), &jinja_list_filters(), &jinja_value_filters()})
            for (const JinjaBuiltin& row : *table) all.emplace(row.name, &row);
        return all;
    }();
    const auto found = rows.find(name);
    return found == rows.end() ? nullptr : found->second;
}

}  // namespace jinja_contract_room

bool jinja_knows_filter(std::string_view name) { return jinja_contract_room::filter_row(name) != nullptr; }
bool jinja_knows_test(std::string_view name) { return jinja_row(jinja_tests(), name) != nullptr; }

JinjaValue jinja_filter(JinjaContext& cx, const std::string& name, const JinjaValue& operand, const JinjaArgs& args) {
    const JinjaBuiltin* row = jinja_contract_room::filter_row(name);
    if (!row) cx.error(str("no filter named '", name, "'"));
    return jinja_run_row(cx, *row, "filter", operand, args);
}
bool jinja_test(JinjaContext& cx, const std::string& name, const JinjaValue& operand, const JinjaArgs& args) {
    const JinjaBuiltin* row = jinja_row(jinja_tests(), name);
    if (!row) cx.error(str("no test named '", name, "'"));
    return jinja_run_row(cx, *row, "test", operand, args).truthy();
}
JinjaValue jinja_call_builtin(JinjaContext& cx, const JinjaCallable& f, const JinjaArgs& args) {
    static const JinjaValue nobody;
    return jinja_run_row(cx, *f.builtin, f.self ? str("method of a ", f.self->type_name()) : "function",
                         f.self ? *f.self : nobody, args);
}

}}  // namespace qlora
