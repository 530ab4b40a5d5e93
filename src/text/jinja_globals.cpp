// jinja_globals.cpp - the functions that every template can call.
#include "src/text/jinja_contract.h"

#include <ctime>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_globals_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;

Value range(JinjaCall& call) {
    if (call.rest.empty() || call.rest.size() > 3) call.error("takes 1 to 3 integers");
    for (const Value& v : call.rest)
        if (!v.is_whole()) call.error(str("takes integers, not a value of type ", v.type_name()));
    const bool one = call.rest.size() == 1;
    return jinja_range(call.cx, one ? 0 : call.rest[0].integer(), call.rest[one ? 0 : 1].integer(),
                       call.rest.size() == 3 ? call.rest[2].integer() : 1);
}

// dict(mapping or pairs, **more)
Value dict(JinjaCall& call) {
    Value v = Value::empty_dict();
    if (call.has(0) && call.at(0).is(Kind::undefined))
        call.error("needs a dict, or pairs of a key and a value, not what is undefined");
    if (call.has(0) && call.at(0).is_mapping()) {
        call.cx.spend(int64_t(call.at(0).dict->items.size()));
        for (const auto& [key, value] : call.at(0).dict->items) v.dict->add(key, value);
    } else if (call.has(0)) {
        for (const Value& item : jinja_items(call.cx, call.at(0))) {
            const std::vector<Value> pair = jinja_items(call.cx, item);
            if (pair.size() != 2) call.error("needs a dict, or pairs of a key and a value");
            v.dict->set(call.cx, pair[0], pair[1]);
        }
    }
    for (const auto& [name, value] : call.keywords) v.dict->set(call.cx, Value::of(name), value);
    return v;
}
Value name_space(JinjaCall& call) {
    Value v = dict(call);
    v.dict->is_namespace = true;
    call.cx.adopt(v.dict);
    return v;
}

Value raise_exception(JinjaCall& call) { call.cx.error(jinja_text(call.cx, call.at(0)).text); }

Value strftime_now(JinjaCall& call) {
    const std::string format = call.string(0);
    for (size_t at = 0; (at = format.find('%', at)) != format.npos; at += 2)
        if (at + 1 < format.size() && std::string_view("fzZ:").find(format[at + 1]) != std::string_view::npos)
            call.error(str("'%", format.substr(at + 1, 1), "' is not supported"));
    if (format.size() > 1000) call.error("a format above 1000 bytes is not supported");
    if (format.empty()) return Value::of("");
    const std::time_t t = std::time(nullptr);
    std::tm local{};
#ifdef _WIN32
    localtime_s(&local, &t);
#else
    localtime_r(&t, &local);
#endif
    std::string buffer(64 * 1024, ' ');
    buffer.resize(std::strftime(buffer.data(), buffer.size(), format.c_str(), &local));
    if (buffer.empty()) call.error("the date is too long");
    return call.cx.text({std::move(buffer), {}, false});
}

}  // namespace jinja_globals_room

const JinjaBuiltin* jinja_global(std::string_view name) {
    using namespace jinja_globals_room;
    static const JinjaTable table = {
        {"namespace", "mapping=, /, **", name_space}, {"range", "*", range}, {"dict", "mapping=, /, **", dict},
        {"raise_exception", "message", raise_exception}, {"strftime_now", "format", strftime_now},
        {"cycler", "*", nullptr}, {"joiner", "*, **", nullptr}, {"lipsum", "*, **", nullptr}, {"self", "", nullptr},
    };
    return jinja_row(table, name);
}

}}  // namespace qlora
