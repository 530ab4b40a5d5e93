// jinja_filters_value.cpp - filters on numbers and on values of any type.
#include "src/text/jinja_contract.h"
#include "src/text/jinja_number.h"
#include "src/text/jinja_text.h"
#include "src/text/jinja_loop.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_filters_value_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

Value length(JinjaCall& call) {
    const Value& v = call.self;
    if (v.is_string()) { call.cx.spend_on(*v.s); return Value::of(text_length(v.str())); }
    if (v.is(Kind::list) && !v.is(Flavour::generator)) return Value::of(int64_t(v.list->items.size()));
    if (v.is_mapping()) return Value::of(int64_t(v.dict->items.size()));
    if (v.is(Kind::loop)) return Value::of(v.loop->count(call.cx));
    if (v.is(Kind::undefined)) return Value::of(int64_t(0));
    call.error(str("of a value of type ", v.type_name()));
}

Value fallback(JinjaCall& call) {                      // default_value="", boolean=false
    const bool use = call.self.is(Kind::undefined) || (call.flag(1) && !call.self.truthy());
    return !use ? call.self : call.has(0) ? call.at(0) : Value::of("");
}

Value absolute(JinjaCall& call) {
    if (!call.self.is_number()) call.error(str("of a value of type ", call.self.type_name()));
    if (call.self.is(Kind::number)) return Value::of(std::fabs(call.self.d));
    return call.self.integer() < 0 ? jinja_arithmetic(call.cx, "*", call.self, Value::of(int64_t(-1)))
                                   : Value::of(call.self.integer());
}

Value whole(JinjaCall& call) {                         // default=0, base=10
    const Value& v = call.self;
    const Value otherwise = call.has(0) ? call.at(0) : Value::of(int64_t(0));
    if (v.is(Kind::undefined)) call.error("of an undefined value");
    if (v.is_whole()) return Value::of(v.integer());
    std::optional<double> d;
    jinja_need_exact(call.cx, v);
    if (v.is(Kind::number)) {
        if (std::isnan(v.d)) return otherwise;
        d = v.d;
    } else if (v.is_string()) {
        call.cx.spend_on(*v.s);
        if (const std::optional<int64_t> n = jinja_parse_int(call.cx, v.str(), call.whole(1, 10))) return Value::of(*n);
        d = jinja_parse_float(call.cx, v.str());       // "42.23"|int is 42
        if (d && !std::isfinite(*d)) return otherwise;
    }
    return d ? Value::of(jinja_whole(call.cx, *d)) : otherwise;
}
Value real(JinjaCall& call) {                          // default=0.0
    const Value& v = call.self;
    if (v.is(Kind::undefined)) call.error("of an undefined value");
    if (v.is_number()) return Value::of(v.number());
    if (v.is_string()) {
        call.cx.spend_on(*v.s);
        if (const std::optional<double> d = jinja_parse_float(call.cx, v.str())) return Value::of(*d);
    }
    return call.has(0) ? call.at(0) : Value::of(0.0);
}

Value round(JinjaCall& call) {                         // precision=0, method="common"
    const Value& v = call.self;
    const std::string method = call.has(1) ? call.string(1) : "common";
    if (method != "common" && method != "ceil" && method != "floor")
        call.error("'method' must be common, ceil or floor");
    if (!v.is_number()) call.error(str("of a value of type ", v.type_name()));
    if (method == "common")
        return jinja_round(call.cx, v, call.given(0) ? call.whole(0, 0) : 0, call.has(0) && !call.given(0));
    const int64_t digits = call.whole(0, 0);
    if (digits < -15 || digits > 15) call.error("more than 15 places with a method are not supported");
    const Value scale = jinja_arithmetic(call.cx, "**", Value::of(int64_t(10)), Value::of(digits));
    const Value scaled = jinja_arithmetic(call.cx, "*", v, scale);
    const double d = scaled.number(), whole = method == "ceil" ? std::ceil(d) : std::floor(d);
    return jinja_arithmetic(call.cx, "/", Value::of(jinja_whole(call.cx, whole)), scale);
}

Value attr(JinjaCall& call) {                          // name: the attribute, never a key of a dict
    if (call.self.is(Kind::undefined)) call.error("of an undefined value");
    if (!call.has(0) || !call.at(0).is_string()) call.error("the name must be a text");
    const std::string& name = call.at(0).str();
    if (call.self.is_mapping() && !jinja_row(jinja_methods(call.self), name)) return {};
    return jinja_attribute(call.cx, call.self, name);
}

}  // namespace jinja_filters_value_room

const JinjaTable& jinja_value_filters() {
    using namespace jinja_filters_value_room;
    static const JinjaTable table = {
        {"length", "", length},
        {"count", "", length},
        {"abs", "", absolute},
        {"default", "default_value=, boolean=", fallback},
        {"d", "default_value=, boolean=", fallback},
        {"int", "default=, base=", whole},
        {"float", "default=", real},
        {"round", "precision=, method=", round},
        {"attr", "name", attr},
    };
    return table;
}

}}  // namespace qlora
