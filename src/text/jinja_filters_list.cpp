// jinja_filters_list.cpp - filters that read or make lists. Those that the reference evaluates lazily return a
// generator: what it holds can be read once, and has neither a length nor a printed form.
#include "src/text/jinja_contract.h"
#include "src/text/jinja_text.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_filters_list_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;
using Items = std::vector<Value>;

Value generator(Items items) { return Value::of(std::move(items), Flavour::generator); }

// Texts are sorted and compared without regard to case unless a filter is told otherwise.
Value folded(JinjaCall& call, const Value& v, bool case_sensitive) {
    if (case_sensitive || !v.is_string()) return v;
    call.cx.spend_on(*v.s);
    return Value::of(text_cased(*v.s, JinjaCase::lower));
}
Value key_of(JinjaCall& call, const Value& item, const std::optional<Value>& attribute, bool case_sensitive) {
    const bool none = !attribute || attribute->is(Kind::none);
    return folded(call, none ? item : jinja_path(call.cx, item, *attribute), case_sensitive);
}

// Stable, as Python's sorted; `reverse` keeps equal items in their order too.
Items sorted(JinjaCall& call, Items items, const std::vector<Value>& keys, bool reverse) {
    std::vector<size_t> order(items.size());
    for (size_t k = 0; k < order.size(); ++k) order[k] = k;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        const int c = jinja_compare(call.cx, keys[a], keys[b]);
        if (c == 2) call.error("sorting nan is not supported");
        return reverse ? c > 0 : c < 0;
    });
    Items out;
    for (const size_t k : order) out.push_back(items[k]);
    return out;
}

Value sort(JinjaCall& call) {                          // reverse=false, case_sensitive=false, attribute=none
    Items items = jinja_items(call.cx, call.self);
    std::vector<std::string> attributes;
    if (call.given(2) && call.at(2).is_string()) {     // "a.b,c": first by one, then by the other
        for (const Value& part : text_split(call.cx, *call.at(2).s, std::make_unique<std::string>(",").get(), -1))
            attributes.push_back(part.str());
    }
    std::vector<Value> keys;
    for (const Value& item : items) {
        Items key;
        for (const std::string& name : attributes) key.push_back(key_of(call, item, Value::of(name), call.flag(1)));
        if (attributes.empty()) key.push_back(key_of(call, item, call.values[2], call.flag(1)));
        keys.push_back(Value::of(std::move(key)));
    }
    return Value::of(sorted(call, std::move(items), keys, call.flag(0)));
}

Value dictsort(JinjaCall& call) {                      // case_sensitive=false, by="key", reverse=false
    if (!call.self.is_mapping()) call.error(str("of a value of type ", call.self.type_name()));
    const std::string by = call.has(1) ? call.string(1) : "key";
    if (by != "key" && by != "value") call.error("'by' must be \"key\" or \"value\"");
    Items items;
    std::vector<Value> keys;
    call.self.dict->read_all();
    for (const auto& [k, v] : call.self.dict->items) {
        items.push_back(Value::of({k, v}, Flavour::tuple));
        keys.push_back(folded(call, by == "key" ? k : v, call.flag(0)));
    }
    return Value::of(sorted(call, std::move(items), keys, call.flag(2)));
}

Value groupby(JinjaCall& call) {                       // attribute, default=none, case_sensitive=false
    Items items = jinja_items(call.cx, call.self);
    const auto real_key = [&](const Value& item) {
        const Value key = jinja_path(call.cx, item, call.at(0));
        return key.is(Kind::undefined) && call.given(1) ? call.at(1) : key;
    };
    if (call.given(1) && call.at(0).is_string() && call.at(0).str().find('.') != std::string::npos)
        call.error("'default' with a dotted attribute is not supported");
    std::vector<Value> keys;
    for (const Value& item : items) keys.push_back(folded(call, real_key(item), call.flag(2)));
    Items pairs;
    for (size_t k = 0; k < items.size(); ++k) pairs.push_back(Value::of({keys[k], items[k]}));
    pairs = sorted(call, std::move(pairs), keys, false);
    Items out;
    for (size_t k = 0; k < pairs.size();) {
        Items group;
        const Value key = pairs[k].list->items[0];
        while (k < pairs.size() && jinja_equal(call.cx, pairs[k].list->items[0], key))
            group.push_back(pairs[k++].list->items[1]);
        Value name = call.flag(2) ? key : real_key(group[0]);
        out.push_back(Value::of({std::move(name), Value::of(std::move(group))}, Flavour::group));
    }
    return Value::of(std::move(out));
}

Value unique(JinjaCall& call) {                        // case_sensitive=false, attribute=none
    std::unordered_multimap<size_t, Value> seen;
    Items out;
    for (const Value& item : jinja_items(call.cx, call.self, true)) {
        const Value key = key_of(call, item, call.values[1], call.flag(0));
        const size_t hash = jinja_hash(call.cx, key);
        const auto [begin, end] = seen.equal_range(hash);
        if (std::any_of(begin, end, [&](const auto& entry) { return jinja_equal(call.cx, entry.second, key); }))
            continue;
        seen.emplace(hash, key);
        out.push_back(item);
    }
    return generator(std::move(out));
}

template <int wanted>
Value extreme(JinjaCall& call) {                       // case_sensitive=false, attribute=none
    Value best, best_key;
    bool first = true;
    for (const Value& item : jinja_items(call.cx, call.self)) {
        const Value key = key_of(call, item, call.values[1], call.flag(0));
        if (!first && jinja_compare(call.cx, key, best_key) != wanted) continue;
        best = item;
        best_key = key;
        first = false;
    }
    return best;
}

Value sum(JinjaCall& call) {                           // attribute=none, start=0
    Value total = call.has(1) ? call.at(1) : Value::of(int64_t(0));
    if (total.is_string()) call.error("cannot sum texts");
    double plain = 0, compensation = 0;                // Python 3.12 sums floats with a compensation, older ones do not
    bool floats = false;
    for (const Value& item : jinja_items(call.cx, call.self)) {
        const Value v = call.given(0) ? jinja_path(call.cx, item, call.at(0)) : item;
        if (v.is(Kind::number) && total.is_number() && std::isfinite(v.d)) {
            if (!floats) plain = total.number();
            floats = true;
            const double next = plain + v.d;
            compensation += std::fabs(plain) >= std::fabs(v.d) ? (plain - next) + v.d : (v.d - next) + plain;
            plain = next;
        } else if (floats && v.is_whole()) plain += v.number();
        total = jinja_arithmetic(call.cx, "+", total, v);
    }
    if (floats && total.is(Kind::number) && plain + compensation != plain)
        call.error("of these floats depends on the reference's version of Python");
    return total;
}

Value select_items(JinjaCall& call, bool by_attribute, bool keep) {
    if (!call.self.truthy()) return generator({});
    size_t first = 0;
    if (by_attribute && call.rest.empty()) call.error("parameter 'attribute' is missing");
    if (by_attribute) first = 1;
    JinjaArgs args;
    for (size_t k = first + 1; k < call.rest.size(); ++k) args.add(call.rest[k]);
    for (const auto& [name, value] : call.keywords) args.add(value, name);
    const bool tests = call.rest.size() > first;
    if (tests && !call.rest[first].is_string()) call.error("the name of a test must be a text");
    Items out;
    for (const Value& item : jinja_items(call.cx, call.self, true)) {
        call.cx.spend(1);
        const Value v = by_attribute ? jinja_path(call.cx, item, call.rest[0]) : item;
        if ((tests ? jinja_test(call.cx, call.rest[first].str(), v, args) : v.truthy()) == keep) out.push_back(item);
    }
    return generator(std::move(out));
}
template <bool by_attribute, bool keep>
Value select(JinjaCall& call) { return select_items(call, by_attribute, keep); }

Value map(JinjaCall& call) {                           // a filter's name and its arguments, or attribute=, default=
    if (!call.self.truthy()) return generator({});
    JinjaArgs args;
    std::optional<Value> attribute, fallback;
    for (size_t k = 1; k < call.rest.size(); ++k) args.add(call.rest[k]);
    for (const auto& [name, value] : call.keywords) {
        if (call.rest.empty() && name == "attribute") attribute = value;
        else if (call.rest.empty() && name == "default") fallback = value;
        else if (call.rest.empty()) call.error(str("has no parameter '", name, "'"));
        else args.add(value, name);
    }
    if (call.rest.empty() && !attribute) call.error("needs the name of a filter, or attribute=");
    if (!call.rest.empty() && !call.rest[0].is_string()) call.error("the name of a filter must be a text");
    if (fallback && !fallback->is(Kind::none) && attribute->is_string() &&
        attribute->str().find('.') != std::string::npos)
        call.error("'default' with a dotted attribute is not supported");
    Items out;
    for (const Value& item : jinja_items(call.cx, call.self, true)) {
        call.cx.spend(1);
        if (!attribute) { out.push_back(jinja_filter(call.cx, call.rest[0].str(), item, args)); continue; }
        const Value v = jinja_path(call.cx, item, *attribute);
        out.push_back(v.is(Kind::undefined) && fallback && !fallback->is(Kind::none) ? *fallback : v);
    }
    return generator(std::move(out));
}

Value batch(JinjaCall& call) {                         // linecount, fill_with=none
    const int64_t count = call.whole(0, 0);
    Items out, row;
    for (const Value& item : jinja_items(call.cx, call.self, true)) {
        if (int64_t(row.size()) == count) { out.push_back(Value::of(std::move(row))); row.clear(); }
        row.push_back(item);
    }
    if (!row.empty()) {
        if (count > 1'000'000) call.error("more than a million items a row are not supported");
        if (call.given(1)) while (int64_t(row.size()) < count) row.push_back(call.at(1));
        out.push_back(Value::of(std::move(row)));
    }
    return generator(std::move(out));
}
Value slice(JinjaCall& call) {                         // slices, fill_with=none
    const Items items = jinja_items(call.cx, call.self, true);
    const int64_t slices = call.whole(0, 0), n = int64_t(items.size());
    if (slices == 0) call.error("division by zero");
    if (slices > 100'000) call.error("more than 100000 slices are not supported");
    call.cx.spend(std::max<int64_t>(slices, 0));
    Items out;
    int64_t at = 0;
    for (int64_t k = 0; k < slices; ++k) {
        const int64_t size = n / slices + (k < n % slices);
        Items part(items.begin() + at, items.begin() + at + size);
        if (call.given(1) && k >= n % slices) part.push_back(call.at(1));
        out.push_back(Value::of(std::move(part)));
        at += size;
    }
    return generator(std::move(out));
}

Value first(JinjaCall& call) {
    const Value& v = call.self;
    if (!v.is(Flavour::generator)) {
        if (v.is(Kind::list)) return v.list->items.empty() ? Value{} : v.list->items[0];
        const Items items = jinja_items(call.cx, v);
        return items.empty() ? Value{} : items[0];
    }
    if (v.list->spoiled) jinja_items(call.cx, v);      // says so
    return v.list->taken < v.list->items.size() ? v.list->items[v.list->taken++] : Value{};
}
Value last(JinjaCall& call) {
    if (call.self.is(Flavour::generator))
        call.error("of a generator, which cannot be read from its end; use |list first");
    if (call.self.is(Kind::list)) return call.self.list->items.empty() ? Value{} : call.self.list->items.back();
    const Items items = jinja_items(call.cx, call.self);
    return items.empty() ? Value{} : items.back();
}
Value reverse(JinjaCall& call) {
    Items items = jinja_items(call.cx, call.self);
    std::reverse(items.begin(), items.end());
    if (call.self.is(Flavour::generator)) return Value::of(std::move(items));
    if (!call.self.is_string()) return generator(std::move(items));
    JinjaText out;
    for (const Value& c : items) out.append(*c.s);
    out.markup = call.self.s->markup;
    return call.cx.text(std::move(out));
}

Value items(JinjaCall& call) {
    if (call.self.is(Kind::undefined)) return generator({});
    if (!call.self.is_mapping()) call.error(str("of a value of type ", call.self.type_name()));
    Items out;
    call.self.dict->read_all();
    for (const auto& [k, v] : call.self.dict->items) out.push_back(Value::of({k, v}, Flavour::tuple));
    call.cx.spend(int64_t(out.size()));
    return generator(std::move(out));
}

}  // namespace jinja_filters_list_room

const JinjaTable& jinja_list_filters() {
    using namespace jinja_filters_list_room;
    static const JinjaTable table = {
        {"list", "", [](JinjaCall& c) { return Value::of(jinja_items(c.cx, c.self)); }},
        {"items", "", items}, {"dictsort", "case_sensitive=, by=, reverse=", dictsort},
        {"first", "", first}, {"last", "", last}, {"reverse", "", reverse}, {"random", "*, **", nullptr},
        {"sort", "reverse=, case_sensitive=, attribute=", sort}, {"unique", "case_sensitive=, attribute=", unique},
        {"groupby", "attribute, default=, case_sensitive=", groupby},
        {"min", "case_sensitive=, attribute=", extreme<-1>}, {"max", "case_sensitive=, attribute=", extreme<1>},
        {"sum", "attribute=, start=", sum}, {"map", "*, **", map},
        {"select", "*, **", select<false, true>}, {"reject", "*, **", select<false, false>},
        {"selectattr", "*, **", select<true, true>}, {"rejectattr", "*, **", select<true, false>},
        {"batch", "linecount, fill_with=", batch}, {"slice", "slices, fill_with=", slice},
    };
    return table;
}

}}  // namespace qlora
