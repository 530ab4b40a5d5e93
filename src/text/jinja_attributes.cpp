// jinja_attributes.cpp - object.name, object[key], object[start:stop:step], item in container, and what iterating
// yields.
//
// As in the reference's sandbox: a dot looks for a method first and for a key then, a bracket the other way round; what
// begins with an underscore and methods that would change a list or dict are undefined.
#include "src/text/jinja_contract.h"
#include "src/text/jinja_loop.h"
#include "src/text/jinja_text.h"
#include "src/text/unicode.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_attributes_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

// What Python's getattr finds: nothing where it raises AttributeError. An undefined result: the sandbox hides it.
std::optional<Value> python_attribute(JinjaContext& cx, const Value& object, const std::string& name) {
    if (object.is(Kind::dict) && object.dict->is_namespace) {
        if (const Value* v = object.dict->find(name)) return *v;
        return name.starts_with("__") ? std::optional(Value{}) : std::nullopt;
    }
    if (name.starts_with("__") && name.ends_with("__") && object.is_mapping() && object.dict->find(name))
        cx.error(str("a key named '", name, "' is not supported"));
    if (object.is(Kind::loop) && !name.starts_with('_') && jinja_row(jinja_methods(object), name) == nullptr) {
        static constexpr std::string_view known[] = {"index",     "index0", "first",  "last",     "length",  "revindex",
                                                     "revindex0", "depth",  "depth0", "previtem", "nextitem"};
        if (std::find(std::begin(known), std::end(known), name) == std::end(known)) return std::nullopt;
        return object.loop->attribute(cx, name);
    }
    if (jinja_changes(object, name)) return Value{};
    if (const JinjaBuiltin* row = jinja_row(jinja_methods(object), name)) {
        const bool only_markup = name == "unescape" || name == "striptags";
        if (!only_markup || object.s->markup) return Value::builtin(row, &object);
    }
    if (object.is(Flavour::group) && (name == "grouper" || name == "list")) return object.list->items[name == "list"];
    if (object.is(Flavour::range) && (name == "start" || name == "stop" || name == "step"))
        return Value::of(name == "start" ? object.list->start : name == "stop" ? object.list->stop : object.list->step);
    if (object.is_number() && (name == "real" || name == "imag" || name == "numerator" || name == "denominator")) {
        if (object.is(Kind::number) && name.size() > 4) return std::nullopt;
        if (name == "imag") return object.is(Kind::number) ? Value::of(0.0) : Value::of(int64_t(0));
        return name == "denominator"     ? Value::of(int64_t(1))
               : object.is(Kind::number) ? object
                                         : Value::of(object.integer());
    }
    if (object.is(Kind::callable) && object.call->macro && name == "name")
        return object.call->name.empty() ? Value::none() : Value::of(object.call->name);
    if (object.is(Kind::callable) && !name.starts_with('_'))
        cx.error(str("attribute '", name, "' of a function is not supported"));
    const bool views = object.is(Flavour::keys) || object.is(Flavour::values) || object.is(Flavour::items);
    if ((views && name == "mapping") || (object.is(Flavour::generator) && name.starts_with("gi_")))
        cx.error(str("attribute '", name, "' is not supported"));
    return std::nullopt;
}

// object[key] where Python's does not raise.
std::optional<Value> python_item(JinjaContext& cx, const Value& object, const Value& key) {
    if (object.is_mapping()) {
        if (key.is(Kind::dict) || (key.is(Kind::list) && !key.is(Flavour::tuple) && !key.is(Flavour::range)))
            return std::nullopt;
        const Value* v = object.dict->find(cx, key);
        return v ? std::optional(*v) : std::nullopt;
    }
    const bool indexed = object.is_string() || (object.is(Kind::list) && object.list->flavour <= Flavour::range);
    if (!indexed || !key.is_whole()) return std::nullopt;
    if (object.is_string()) cx.spend_on(*object.s);
    const int64_t n = object.is_string() ? text_length(object.str()) : int64_t(object.list->items.size());
    const int64_t at = key.integer() < 0 ? key.integer() + n : key.integer();
    if (at < 0 || at >= n) return std::nullopt;
    if (!object.is_string()) return object.list->items[size_t(at)];
    const size_t begin = text_offset(object.str(), at);
    return cx.text(object.s->part(int64_t(begin), int64_t(begin + size_t(utf8_at(object.str(), begin).bytes))));
}

struct Slice { int64_t start, stop, step; };

Slice slice_of(JinjaContext& cx, const Value part[3], int64_t size) {
    std::optional<int64_t> given[3];
    for (int k = 0; k < 3; ++k) {
        if (part[k].is(Kind::none)) continue;
        if (!part[k].is_whole()) cx.error("the parts of a slice must be integers");
        given[k] = part[k].integer();
    }
    const int64_t step = given[2].value_or(1);
    if (step == 0) cx.error("the step of a slice is zero");
    const auto bound = [&](std::optional<int64_t> p, int64_t none) {
        if (!p) return none;
        const int64_t at = *p < 0 ? (*p < -size ? -1 : *p + size) : std::min(*p, size);
        return step > 0 ? std::max<int64_t>(at, 0) : std::min(at, size - 1);
    };
    return {bound(given[0], step > 0 ? 0 : size - 1), bound(given[1], step > 0 ? size : -1), step};
}

}  // namespace jinja_attributes_room

JinjaValue jinja_attribute(JinjaContext& cx, const JinjaValue& object, const std::string& name) {
    using namespace jinja_attributes_room;
    if (object.is(Kind::undefined)) cx.error(str("an undefined value has no '", name, "'"));
    if (const std::optional<Value> v = python_attribute(cx, object, name)) return *v;
    return python_item(cx, object, Value::of(name)).value_or(Value{});
}

JinjaValue jinja_subscript(JinjaContext& cx, const JinjaValue& object, const JinjaValue& key) {
    using namespace jinja_attributes_room;
    if (object.is(Kind::undefined)) cx.error("an undefined value has no elements");
    if (const std::optional<Value> v = python_item(cx, object, key)) return *v;
    return key.is_string() ? python_attribute(cx, object, key.str()).value_or(Value{}) : Value{};
}

JinjaValue jinja_path(JinjaContext& cx, const JinjaValue& object, const JinjaValue& path) {
    using namespace jinja_attributes_room;
    if (!path.is_string()) return jinja_subscript(cx, object, path);
    Value v = object;
    const std::string& dotted = path.str();
    for (size_t at = 0; at <= dotted.size();) {
        const size_t dot = std::min(dotted.find('.', at), dotted.size());
        const std::string part = dotted.substr(at, dot - at);
        const bool number = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
        v = jinja_subscript(cx, v, number ? Value::of(int64_t(std::stoll(part))) : Value::of(part));
        at = dot + 1;
    }
    return v;
}

JinjaValue jinja_slice(JinjaContext& cx, const JinjaValue& object, const JinjaValue part[3]) {
    using namespace jinja_attributes_room;
    const bool sliced = object.is_string() || (object.is(Kind::list) && object.list->flavour <= Flavour::range);
    if (!sliced) cx.error(str("cannot slice a value of type ", object.type_name()));
    const std::vector<Value> items = jinja_items(cx, object);
    const Slice s = slice_of(cx, part, int64_t(items.size()));
    if (object.is(Flavour::range)) {
        const JinjaList& r = *object.list;
        if (std::abs(s.step) > 1'000'000) cx.error("a slice of a range with such a step is not supported");
        return jinja_range(cx, r.start + s.start * r.step, r.start + s.stop * r.step, r.step * s.step);
    }
    std::vector<Value> out;
    for (int64_t k = s.start; s.step > 0 ? k < s.stop : k > s.stop;) {
        out.push_back(items[size_t(k)]);
        if (__builtin_add_overflow(k, s.step, &k)) break;
    }
    if (!object.is_string())
        return Value::of(std::move(out), object.is(Flavour::list) ? Flavour::list : Flavour::tuple);
    JinjaText t;
    for (const Value& c : out) t.append(*c.s);
    t.markup = object.s->markup;
    return cx.text(std::move(t));
}

bool jinja_contains(JinjaContext& cx, const JinjaValue& container, const JinjaValue& item) {
    using namespace jinja_attributes_room;
    if (container.is_mapping()) {
        if (!item.is_string()) jinja_hash(cx, item);
        return container.dict->find(cx, item) != nullptr;
    }
    if (container.is_string()) {
        if (!item.is_string()) cx.error(str("'in' between ", item.type_name(), " and text"));
        cx.spend_on(*container.s);
        cx.spend_on(*item.s);
        return item.str().empty() || JinjaFinder(item.str()).find(container.str(), 0) != std::string::npos;
    }
    if (container.is(Flavour::generator) && !container.list->spoiled) {
        JinjaList& g = *container.list;                // read up to the item that was found
        while (g.taken < g.items.size()) if (jinja_equal(cx, g.items[g.taken++], item)) return true;
        return false;
    }
    if (container.is(Flavour::keys)) jinja_hash(cx, item);
    const bool listed = container.is(Kind::list) && !container.is(Flavour::generator);
    const std::vector<Value> made = listed ? std::vector<Value>{} : jinja_items(cx, container);
    for (const Value& x : listed ? container.list->items : made) if (jinja_equal(cx, x, item)) return true;
    return false;
}

std::vector<JinjaValue> jinja_items(JinjaContext& cx, const JinjaValue& v, bool lazily) {
    using namespace jinja_attributes_room;
    std::vector<JinjaValue> out;
    if (v.is(Flavour::generator)) {
        JinjaList& g = *v.list;
        if (g.spoiled) cx.error("reading again what a lazy filter or a loop read in part is not supported; use |list");
        out.assign(g.items.begin() + int64_t(g.taken), g.items.end());
        g.taken = g.items.size();
        g.spoiled = lazily;
    } else if (v.is(Kind::list)) {
        cx.spend(int64_t(v.list->items.size()));       // before it is copied
        return v.list->items;
    } else if (v.is_mapping()) {
        for (const auto& [k, x] : v.dict->items) out.push_back(k);
    } else if (v.is_string()) {
        const std::string& s = v.str();
        cx.spend(int64_t(s.size()) * (1 + int64_t(v.s->content.size()) / 8));
        for (size_t b = 0; b < s.size();) {
            const size_t e = b + size_t(utf8_at(s, b).bytes);
            JinjaText c = v.s->part(int64_t(b), int64_t(e));
            c.markup = false;
            out.push_back(Value::of(std::move(c)));
            b = e;
        }
        return out;
    } else if (!v.is(Kind::undefined)) cx.error(str("cannot iterate over a value of type ", v.type_name()));
    cx.spend(int64_t(out.size()));
    return out;
}

}}  // namespace qlora
