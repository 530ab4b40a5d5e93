// jinja_expressions.cpp - the expressions of a template, loosest first: a if b else c, or, and, not, comparisons, + -,
// ~, * / // %, **, signs, filters and tests.
//
// As in the reference a sign binds tighter than ** and than filters ((-5)|abs is 5, -2**2 is 4), ** is read from the
// left, and a < b < c is a chain.
#include "src/base/number.h"
#include "src/text/jinja_parser.h"
#include "src/text/jinja_value.h"

#include <charconv>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_parser_room {

JinjaNodePtr JinjaParser::make(Kind kind, std::string text) const {
    auto n = std::make_unique<JinjaNode>();
    n->kind = kind;
    n->line = peek().line;
    n->text = std::move(text);
    return n;
}
bool reads_names(const JinjaNode& n) {
    return n.kind == JinjaNode::Kind::name ||
           std::any_of(n.kids.begin(), n.kids.end(), [](const JinjaNodePtr& kid) { return kid && reads_names(*kid); });
}
JinjaNodePtr JinjaParser::make(Kind kind, JinjaNodePtr kid, std::string text) const {
    JinjaNodePtr n = make(kind, std::move(text));
    n->kids.push_back(std::move(kid));
    return n;
}
JinjaNodePtr JinjaParser::binary(std::string op, JinjaNodePtr a, JinjaNodePtr b) const {
    JinjaNodePtr n = make(Kind::binary, std::move(a), std::move(op));
    n->kids.push_back(std::move(b));
    return n;
}

JinjaNodePtr JinjaParser::expression(bool with_condition) {
    Deeper deeper(*this);
    JinjaNodePtr value = logical_or();
    while (with_condition && take_word("if")) {
        Soft soft(*this, true);
        JinjaNodePtr n = make(Kind::ternary, logical_or());
        n->kids.push_back(std::move(value));
        n->kids.push_back(take_word("else") ? expression() : nullptr);
        value = std::move(n);
    }
    return value;
}
JinjaNodePtr JinjaParser::logical_or() {
    JinjaNodePtr a = logical_and();
    while (take_word("or")) a = binary("or", std::move(a), logical_and());
    return a;
}
JinjaNodePtr JinjaParser::logical_and() {
    JinjaNodePtr a = logical_not();
    while (take_word("and")) a = binary("and", std::move(a), logical_not());
    return a;
}
JinjaNodePtr JinjaParser::logical_not() {
    Deeper deeper(*this);
    return take_word("not") ? make(Kind::unary, logical_not(), "not") : comparison();
}
JinjaNodePtr JinjaParser::comparison() {
    JinjaNodePtr chain = nullptr, first = sum();
    while (true) {
        std::string op;
        for (std::string_view known : {"==", "!=", "<", ">", "<=", ">="}) if (op.empty() && take_op(known)) op = known;
        if (op.empty() && take_word("in")) op = "in";
        if (op.empty() && is_word("not") && is_word("in", 1)) { at += 2; op = "not in"; }
        if (op.empty()) return chain ? std::move(chain) : std::move(first);
        if (!chain) chain = make(Kind::compare, std::move(first));
        chain->names.push_back(std::move(op));
        chain->kids.push_back(sum());
    }
}
JinjaNodePtr JinjaParser::sum() {
    JinjaNodePtr a = concat();
    while (is_op("+") || is_op("-")) {
        std::string op = lex[at++].value;
        a = binary(std::move(op), std::move(a), concat());
    }
    return a;
}
JinjaNodePtr JinjaParser::concat() {
    JinjaNodePtr first = product();
    if (!is_op("~")) return first;
    JinjaNodePtr n = make(Kind::concat, std::move(first));
    while (take_op("~")) n->kids.push_back(product());
    return n;
}
JinjaNodePtr JinjaParser::product() {
    JinjaNodePtr a = power();
    while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
        std::string op = lex[at++].value;
        a = binary(std::move(op), std::move(a), power());
    }
    return a;
}
JinjaNodePtr JinjaParser::power() {
    JinjaNodePtr a = unary();
    while (take_op("**")) {
        a = binary("**", std::move(a), unary());
        a->flag = !reads_names(*a->kids[0]) && reads_names(*a->kids[1]);
    }
    return a;
}
JinjaNodePtr JinjaParser::unary(bool with_filters) {
    Deeper deeper(*this);
    JinjaNodePtr n;
    if (is_op("-") || is_op("+")) {
        std::string op = lex[at++].value;
        n = make(Kind::unary, unary(false), std::move(op));
    } else n = primary();
    n = postfix(std::move(n));
    return with_filters ? filters_and_tests(std::move(n)) : std::move(n);
}

JinjaNodePtr JinjaParser::primary(bool namespace_target) {
    Deeper deeper(*this);
    const JinjaLexeme& t = peek();
    JinjaNodePtr n;
    switch (t.type) {
        case Type::string:
            n = make(Kind::literal_string);
            while (peek().type == Type::string) n->text += lex[at++].value;
            return n;
        case Type::integer:
            n = make(Kind::literal_int);
            if (std::from_chars(t.value.data(), t.value.data() + t.value.size(), n->integer).ec != std::errc{})
                error(str("the integer ", t.value, " needs more than 64 bits, which is not supported"));
            ++at;
            return n;
        case Type::number: {
            n = make(Kind::literal_float);
            const std::errc bad = parse_double(t.value.data(), t.value.data() + t.value.size(), n->number).ec;
            if (bad != std::errc{}) error(str("the number ", t.value, " is out of range"));
            ++at;
            return n;
        }
        case Type::name:
            ++at;
            if (t.value == "true" || t.value == "True" || t.value == "false" || t.value == "False") {
                n = make(Kind::literal_bool);
                n->flag = t.value[0] == 't' || t.value[0] == 'T';
            } else if (t.value == "none" || t.value == "None") n = make(Kind::literal_none);
            else if (namespace_target && take_op(".")) {
                n = make(Kind::namespace_target, make(Kind::name, t.value), need_name());
            } else n = make(Kind::name, t.value);
            return n;
        default: break;
    }
    if (take_op("(")) {
        n = tuple(true, {}, true);
        need_op(")");
        return n;
    }
    if (take_op("[")) {
        n = make(Kind::list);
        while (!is_op("]")) {
            if (!n->kids.empty()) need_op(",");
            if (!is_op("]")) n->kids.push_back(expression());
        }
        ++at;
        return n;
    }
    if (take_op("{")) {
        n = make(Kind::dict);
        while (!is_op("}")) {
            if (!n->kids.empty()) need_op(",");
            if (is_op("}")) break;
            n->kids.push_back(expression());
            need_op(":");
            n->kids.push_back(expression());
        }
        ++at;
        return n;
    }
    expected("a value");
}

bool JinjaParser::is_tuple_end(Words ends) const {
    return peek().type == Type::print_end || peek().type == Type::block_end || is_op(")") || is_any(ends);
}

JinjaNodePtr JinjaParser::tuple(bool with_condition, Words ends, bool parenthesized) {
    JinjaNodePtr n = make(Kind::tuple);
    bool comma = false;
    while (!is_tuple_end(ends)) {
        n->kids.push_back(expression(with_condition));
        if (!take_op(",")) break;
        comma = true;
    }
    if (comma) return n;
    if (n->kids.size() == 1) return std::move(n->kids[0]);
    if (!parenthesized) expected("an expression");
    return n;
}

JinjaNodePtr JinjaParser::target(bool with_namespace, Words ends) {
    JinjaNodePtr n = make(Kind::tuple);
    bool comma = false;
    const auto assigned = [&](auto&& self, JinjaNode& part) -> void {
        part.flag = true;
        if (part.kind == Kind::tuple || part.kind == Kind::list) {
            for (JinjaNodePtr& kid : part.kids) self(self, *kid);
            return;
        }
        if (part.kind != Kind::name && part.kind != Kind::namespace_target) error("cannot assign to this expression");
    };
    while (!is_tuple_end(ends)) {
        n->kids.push_back(primary(with_namespace));
        assigned(assigned, *n->kids.back());
        if (!take_op(",")) break;
        comma = true;
    }
    if (!comma && n->kids.empty()) expected("a name");
    return comma ? std::move(n) : std::move(n->kids[0]);
}
std::string JinjaParser::target_name() {
    std::string name = need_name();
    for (std::string_view constant : {"true", "false", "none", "True", "False", "None"})
        if (name == constant) error(str("cannot assign to '", name, "'"));
    return name;
}

// ---- what follows a value
JinjaNodePtr JinjaParser::postfix(JinjaNodePtr value) {
    while (true) {
        if (is_op(".") || is_op("[")) value = subscript(std::move(value));
        else if (is_op("(")) value = call(std::move(value));
        else return value;
    }
}
JinjaNodePtr JinjaParser::filters_and_tests(JinjaNodePtr value) {
    while (true) {
        if (is_op("|")) value = filters(std::move(value));
        else if (is_word("is")) value = test(std::move(value));
        else if (is_op("(")) value = call(std::move(value));
        else return value;
    }
}
std::string JinjaParser::dotted_name() {
    std::string name = need_name();
    while (take_op(".")) name += '.' + need_name();
    return name;
}
JinjaNodePtr JinjaParser::filters(JinjaNodePtr operand, bool first_without_bar) {
    while (first_without_bar || take_op("|")) {
        first_without_bar = false;
        const std::string name = dotted_name();
        if (!optional && !jinja_knows_filter(name)) error(str("no filter named '", name, "'"));
        JinjaNodePtr n = make(Kind::filter, std::move(operand), name);
        n->names.emplace_back();
        if (take_op("(")) arguments(*n);
        operand = std::move(n);
    }
    return operand;
}
JinjaNodePtr JinjaParser::test(JinjaNodePtr operand) {
    need_word("is");
    const bool negated = take_word("not");
    const std::string name = dotted_name();
    if (!optional && !jinja_knows_test(name)) error(str("no test named '", name, "'"));
    JinjaNodePtr n = make(Kind::test, std::move(operand), name);
    n->names.emplace_back();
    const Type t = peek().type;
    const bool begins_value = t == Type::name || t == Type::string || t == Type::integer || t == Type::number ||
                              is_op("[") || is_op("{");
    if (take_op("(")) arguments(*n);
    else if (begins_value && !is_any({"else", "or", "and"})) {           // "x is divisibleby 3": a bare argument
        if (is_word("is")) error("tests cannot be chained with 'is'");
        n->kids.push_back(postfix(primary()));
        n->names.emplace_back();
    }
    return negated ? make(Kind::unary, std::move(n), "not") : std::move(n);
}
JinjaNodePtr JinjaParser::call(JinjaNodePtr callee) {
    JinjaNodePtr n = make(Kind::call, std::move(callee));
    n->names.emplace_back();
    need_op("(");
    arguments(*n);
    return n;
}
void JinjaParser::arguments(JinjaNode& call) {         // after '('
    bool comma = false, keywords = false, list = false, dict = false;
    while (!is_op(")")) {
        if (comma) { need_op(","); if (is_op(")")) break; }
        std::string keyword;
        if (take_op("*")) {
            keyword = "*";
            if (list || dict) error("a call unpacks one list, before the keywords");
            list = true;
        } else if (take_op("**")) {
            keyword = "**";
            if (dict) error("a call unpacks one dict");
            dict = true;
        } else if (peek().type == Type::name && is_op("=", 1)) {
            keyword = need_name();
            ++at;
            if (dict) error("a keyword follows '**' in a call");
            for (const std::string& name : call.names)
                if (name == keyword) error(str("the keyword '", keyword, "' is given twice"));
            keywords = true;
        } else if (keywords || list || dict) error("a positional argument follows keywords in a call");
        call.kids.push_back(expression());
        call.names.push_back(std::move(keyword));
        comma = true;
    }
    ++at;
}
JinjaNodePtr JinjaParser::subscript(JinjaNodePtr object) {
    JinjaNodePtr n = make(Kind::subscript, JinjaNodePtr());
    if (take_op(".")) {
        if (peek().type == Type::integer) n->kids.push_back(primary());
        else n = make(Kind::attribute, JinjaNodePtr(), need_name());
        n->kids[0] = std::move(object);
        return n;
    }
    need_op("[");
    n->kids[0] = std::move(object);
    JinjaNodePtr parts = make(Kind::tuple);
    while (!is_op("]")) {
        if (!parts->kids.empty()) need_op(",");
        parts->kids.push_back(subscript_part());
    }
    ++at;
    if (parts->kids.size() == 1) n->kids.push_back(std::move(parts->kids[0]));
    else {
        for (const JinjaNodePtr& part : parts->kids)
            if (part->kind == Kind::slice) error("several slices in one subscript are not supported");
        n->kids.push_back(std::move(parts));
    }
    return n;
}
JinjaNodePtr JinjaParser::subscript_part() {           // an expression, or start:stop:step
    JinjaNodePtr start = is_op(":") ? nullptr : expression();
    if (!take_op(":")) return start;
    JinjaNodePtr n = make(Kind::slice, std::move(start));
    n->kids.push_back(is_op(":") || is_op("]") || is_op(",") ? nullptr : expression());
    n->kids.push_back(!take_op(":") || is_op("]") || is_op(",") ? nullptr : expression());
    return n;
}

}  // namespace jinja_parser_room
}}  // namespace qlora
