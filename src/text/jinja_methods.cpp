// jinja_methods.cpp - methods of lists, dicts, numbers and loops, and the tables of all types.
#include "src/text/jinja_contract.h"
#include "src/text/jinja_loop.h"
#include "src/text/jinja_methods.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_methods_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

Value list_index(JinjaCall& call) {
    const std::vector<Value>& items = call.self.list->items;
    for (size_t k = 0; k < items.size(); ++k)
        if (jinja_equal(call.cx, items[k], call.at(0))) return Value::of(int64_t(k));
    call.error("not in the list");
}
Value list_count(JinjaCall& call) {
    const std::vector<Value>& items = call.self.list->items;
    return Value::of(int64_t(std::count_if(items.begin(), items.end(),
                                           [&](const Value& v) { return jinja_equal(call.cx, v, call.at(0)); })));
}

Value view(JinjaCall& call, Flavour flavour) {
    std::vector<Value> out;
    if (flavour != Flavour::keys) call.self.dict->read_all();
    for (const auto& [k, v] : call.self.dict->items)
        out.push_back(flavour == Flavour::keys     ? k
                      : flavour == Flavour::values ? v
                                                   : Value::of({k, v}, Flavour::tuple));
    call.cx.spend(int64_t(out.size()));
    return Value::of(std::move(out), flavour);
}
template <Flavour flavour>
Value view(JinjaCall& call) { return view(call, flavour); }

Value dict_get(JinjaCall& call) {                      // key, default=none
    if (!call.at(0).is_string()) jinja_hash(call.cx, call.at(0));
    const Value* v = call.self.dict->find(call.cx, call.at(0));
    return v ? *v : call.has(1) ? call.at(1) : Value::none();
}
Value dict_copy(JinjaCall& call) {
    Value v = Value::empty_dict();
    call.cx.spend(int64_t(call.self.dict->items.size()));
    for (const auto& [key, value] : call.self.dict->items) v.dict->add(key, value);
    return v;
}

Value loop_cycle(JinjaCall& call) {
    if (call.rest.empty()) call.error("needs values");
    return call.rest[size_t(call.self.loop->index0) % call.rest.size()];
}
Value loop_changed(JinjaCall& call) {
    const Value now = Value::of(call.rest, Flavour::tuple);
    std::optional<Value>& last = call.self.loop->last_changed;
    if (last && jinja_equal(call.cx, *last, now)) return Value::of(false);
    last = now;
    return Value::of(true);
}

}  // namespace jinja_methods_room

const JinjaTable& jinja_methods(const JinjaValue& self) {
    using namespace jinja_methods_room;
    static const JinjaTable none,
        list = {{"index", "value, start!, stop!, /", list_index},
                {"count", "value, /", list_count},
                {"copy", "", [](JinjaCall&c) { return Value::of(jinja_items(c.cx, c.self)); }}};
    static const JinjaTable tuple = {{"index", "value, start!, stop!, /", list_index},
                                     {"count", "value, /", list_count}};
    static const JinjaTable views = {{"isdisjoint", "*", nullptr}};
    static const JinjaTable generator = {{"send", "*", nullptr}, {"throw", "*", nullptr}, {"close", "*", nullptr}};
    static const JinjaTable dict = {
        {"items", "", view<Flavour::items>},   {"keys", "", view<Flavour::keys>}, {"values", "", view<Flavour::values>},
        {"get", "key, default=, /", dict_get}, {"copy", "", dict_copy},           {"fromkeys", "*", nullptr}};
    static const JinjaTable whole = {{"bit_length", "*", nullptr}, {"bit_count", "*", nullptr},
                                     {"conjugate", "*", nullptr},  {"as_integer_ratio", "*", nullptr},
                                     {"to_bytes", "*", nullptr},   {"from_bytes", "*", nullptr},
                                     {"is_integer", "*", nullptr}};
    static const JinjaTable number = {
        {"is_integer", "",
         [](JinjaCall& c) { return Value::of(std::isfinite(c.self.d) && c.self.d == std::floor(c.self.d)); }},
        {"conjugate", "*", nullptr},
        {"as_integer_ratio", "*", nullptr},
        {"hex", "*", nullptr},
        {"fromhex", "*", nullptr}};
    static const JinjaTable loop = {{"cycle", "*", loop_cycle}, {"changed", "*", loop_changed}};
    switch (self.kind) {
        case Kind::string: return jinja_string_methods(self);
        case Kind::boolean: case Kind::integer: return whole;
        case Kind::number: return number;
        case Kind::dict: return self.dict->is_namespace ? none : dict;
        case Kind::loop: return loop;
        case Kind::list: break;
        default: return none;
    }
    switch (self.list->flavour) {
        case Flavour::list: return list;
        case Flavour::tuple: case Flavour::range: case Flavour::group: return tuple;
        case Flavour::generator: return generator;
        default: return views;
    }
}

bool jinja_changes(const JinjaValue& self, std::string_view name) {
    using namespace jinja_methods_room;
    const auto among = [&](std::initializer_list<std::string_view> names) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (self.is(Flavour::list))
        return among({"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
    return self.is_mapping() && among({"clear", "pop", "popitem", "setdefault", "update"});
}

}}  // namespace qlora
