// jinja_tests.cpp - what stands behind "is".
#include "src/text/jinja_contract.h"
#include "src/text/jinja_number.h"
#include "src/text/jinja_text.h"

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_tests_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

template <int rest>
Value parity(JinjaCall& call) {                        // value % 2 == rest: of floats too
    return Value::of(jinja_equal(call.cx, jinja_arithmetic(call.cx, "%", call.self, Value::of(int64_t(2))),
                                 Value::of(int64_t(rest))));
}
Value divisibleby(JinjaCall& call) {
    return Value::of(
        jinja_equal(call.cx, jinja_arithmetic(call.cx, "%", call.self, call.at(0)), Value::of(int64_t(0))));
}
Value equal(JinjaCall& call) { return Value::of(jinja_equal(call.cx, call.self, call.at(0))); }
Value unequal(JinjaCall& call) { return Value::of(!jinja_equal(call.cx, call.self, call.at(0))); }

template <bool below, bool same, bool above>
Value order(JinjaCall& call) {
    const int c = jinja_compare(call.cx, call.self, call.at(0));
    return Value::of((c == -1 && below) || (c == 0 && same) || (c == 1 && above));
}

Value sameas(JinjaCall& call) {    // identity: of constants and containers; of numbers and texts it is a matter of luck
    const Value &a = call.self, &b = call.at(0);
    if (a.kind != b.kind) return Value::of(false);
    switch (a.kind) {
        case Kind::none: return Value::of(true);
        case Kind::boolean: return Value::of(a.b == b.b);
        case Kind::list: return Value::of(a.list == b.list);
        case Kind::dict: return Value::of(a.dict == b.dict);
        default: call.error(str("of values of type ", a.type_name(), " is not supported"));
    }
}

bool iterable(const Value& v) {
    return v.is(Kind::list) || v.is_mapping() || v.is_string() || v.is(Kind::undefined) || v.is(Kind::loop);
}
// len() and __getitem__
bool sequence(const Value& v) {
    return v.is_string() || v.is_mapping() || v.is(Kind::undefined) ||
           (v.is(Kind::list) && v.list->flavour <= Flavour::range);
}

template <bool (*known)(std::string_view)>
Value named(JinjaCall& call) {                         // whether a filter or test of that name exists
    jinja_hash(call.cx, call.self);
    return Value::of(call.self.is_string() && known(call.self.str()));
}

template <Kind kind>
Value is(JinjaCall& call) {
    if (kind == Kind::integer || kind == Kind::number) jinja_need_exact(call.cx, call.self);
    return Value::of(call.self.is(kind));
}

}  // namespace jinja_tests_room

const JinjaTable& jinja_tests() {
    using namespace jinja_tests_room;
    static const JinjaTable table = {
        {"defined", "", [](JinjaCall& c) { return Value::of(!c.self.is(Kind::undefined)); }},
        {"undefined", "", is<Kind::undefined>},
        {"none", "", is<Kind::none>},
        {"string", "", is<Kind::string>},
        {"integer", "", is<Kind::integer>},
        {"float", "", is<Kind::number>},
        {"boolean", "", is<Kind::boolean>},
        {"callable", "",
         [](JinjaCall& c) {
             return Value::of(c.self.is(Kind::callable) || c.self.is(Kind::loop) || c.self.is(Kind::undefined));
         }},
        {"mapping", "", [](JinjaCall& c) { return Value::of(c.self.is_mapping()); }},
        {"iterable", "", [](JinjaCall& c) { return Value::of(iterable(c.self)); }},
        {"sequence", "", [](JinjaCall& c) { return Value::of(sequence(c.self)); }},
        {"number", "", [](JinjaCall& c) { return Value::of(c.self.is_number()); }},
        {"true", "", [](JinjaCall& c) { return Value::of(c.self.is(Kind::boolean) && c.self.b); }},
        {"false", "", [](JinjaCall& c) { return Value::of(c.self.is(Kind::boolean) && !c.self.b); }},
        {"lower", "", [](JinjaCall& c) { return Value::of(text_is(c.text().text, "islower")); }},
        {"upper", "", [](JinjaCall& c) { return Value::of(text_is(c.text().text, "isupper")); }},
        {"escaped", "", [](JinjaCall& c) { return Value::of(c.self.is_string() && c.self.s->markup); }},
        {"odd", "", parity<1>},
        {"even", "", parity<0>},
        {"divisibleby", "num", divisibleby},
        {"in", "seq", [](JinjaCall& c) { return Value::of(jinja_contains(c.cx, c.at(0), c.self)); }},
        {"sameas", "other", sameas},
        {"==", "other, /", equal},
        {"eq", "other, /", equal},
        {"equalto", "other, /", equal},
        {"!=", "other, /", unequal},
        {"ne", "other, /", unequal},
        {"<", "other, /", order<true, false, false>},
        {"lt", "other, /", order<true, false, false>},
        {"lessthan", "other, /", order<true, false, false>},
        {"<=", "other, /", order<true, true, false>},
        {"le", "other, /", order<true, true, false>},
        {">", "other, /", order<false, false, true>},
        {"gt", "other, /", order<false, false, true>},
        {"greaterthan", "other, /", order<false, false, true>},
        {">=", "other, /", order<false, true, true>},
        {"ge", "other, /", order<false, true, true>},
        {"filter", "", named<jinja_knows_filter>},
        {"test", "", named<jinja_knows_test>},
    };
    return table;
}

}}  // namespace qlora
