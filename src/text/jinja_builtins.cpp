// jinja_builtins.cpp - the filters, tests and methods that chat templates call. An unknown one is an error that names it.
#include "src/text/jinja_value.h"

#include <algorithm>
#include <cmath>

namespace qlora::inline v0_1 {
namespace jinja_builtins_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;

inline bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
inline char lower(char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; }
inline char upper(char c) { return c >= 'a' && c <= 'z' ? char(c - 32) : c; }
inline bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80); }

inline JinjaText strip(const JinjaText& t, bool left, bool right, const std::string* chars) {
    const auto drop = [&](char c) { return chars ? chars->find(c) != chars->npos : is_space(c); };
    int64_t b = 0, e = int64_t(t.text.size());
    if (left) while (b < e && drop(t.text[size_t(b)])) ++b;
    if (right) while (e > b && drop(t.text[size_t(e - 1)])) --e;
    return t.part(b, e);
}

inline std::string cased(const std::string& s, const std::string& how) {
    std::string out = s;
    bool start = true;
    for (char& c : out) {
        if (how == "upper") c = upper(c);
        else if (how == "lower") c = lower(c);
        else if (how == "capitalize") { c = start ? upper(c) : lower(c); start = false; continue; }
        else c = start ? upper(c) : lower(c);          // title
        start = !letter(c);
    }
    return out;
}

inline JinjaText replaced(JinjaContext& cx, const JinjaText& t, const std::string& from, const std::string& to, int64_t count) {
    if (from.empty()) cx.error("replace: the text to replace is empty");
    JinjaText out;                                     // piece by piece: text that grew from turn to turn keeps what belongs to whom
    size_t at = 0;
    while (count-- != 0) {
        const size_t hit = t.text.find(from, at);
        if (hit == t.text.npos) break;
        out.append(t.part(int64_t(at), int64_t(hit)));
        out.append(t.part(int64_t(hit), int64_t(hit + from.size())).made_over(to));
        at = hit + from.size();
        cx.spend(1);
        cx.check_size(int64_t(out.text.size()));
    }
    out.append(t.part(int64_t(at), int64_t(t.text.size())));
    return out;
}

inline std::vector<Value> split(const JinjaText& t, const std::string* separator, int64_t limit, JinjaContext& cx) {
    std::vector<Value> out;
    const std::string& s = t.text;
    size_t at = 0;
    if (separator && separator->empty()) cx.error("split: empty separator");
    while (true) {
        if (!separator) { while (at < s.size() && is_space(s[at])) ++at; if (at == s.size()) return out; }
        size_t hit = s.npos;
        if (limit != 0) {
            if (separator) hit = s.find(*separator, at);
            else { hit = at; while (hit < s.size() && !is_space(s[hit])) ++hit; if (hit == s.size()) hit = s.npos; }
        }
        cx.spend(1 + int64_t(t.content.size()) / 8);
        if (hit == s.npos) { out.push_back(Value::of(t.part(int64_t(at), int64_t(s.size())))); return out; }
        out.push_back(Value::of(t.part(int64_t(at), int64_t(hit))));
        at = hit + (separator ? separator->size() : 1);
        --limit;
    }
}

inline JinjaText joined(JinjaContext& cx, const std::vector<Value>& items, const JinjaText& glue) {
    JinjaText out;
    for (size_t k = 0; k < items.size(); ++k) {
        if (k) out.append(glue);
        out.append(jinja_text(cx, items[k]));
        cx.check_size(int64_t(out.text.size()));
    }
    return out;
}

inline int64_t length(JinjaContext& cx, const Value& v) {
    if (v.is_string()) cx.spend_on(*v.s);
    if (v.is(Kind::list)) return int64_t(v.list->items.size());
    if (v.is(Kind::dict)) return int64_t(v.dict->items.size());
    if (v.is_string()) return std::count_if(v.str().begin(), v.str().end(), [](char c) { return (c & 0xc0) != 0x80; });
    if (v.is(Kind::undefined)) return 0;
    cx.error(str("length of a value of type ", v.type_name()));
}

// -1, 0, 1; only numbers with numbers and texts with texts.
inline int compare(JinjaContext& cx, const Value& a, const Value& b) {
    if (a.is_number() && b.is_number()) return a.number() < b.number() ? -1 : a.number() > b.number();
    if (a.is_string() && b.is_string()) cx.spend(int64_t(std::min(a.str().size(), b.str().size())) / 64);
    if (a.is_string() && b.is_string()) return a.str() < b.str() ? -1 : a.str() > b.str();
    cx.error(str("cannot order ", a.type_name(), " and ", b.type_name()));
}

inline Value path(const Value& item, const std::string& dotted) {      // "function.name"
    Value v = item;
    for (size_t at = 0; at <= dotted.size();) {
        const size_t dot = std::min(dotted.find('.', at), dotted.size());
        v = jinja_attribute(v, dotted.substr(at, dot - at));
        at = dot + 1;
    }
    return v;
}

inline const std::string& text_arg(JinjaContext& cx, const JinjaArgs& args, size_t position, std::string_view name) {
    const Value* v = args.get(position, name);
    if (!v || !v->is_string()) cx.error(str("expected a text as argument '", name, "'"));
    return v->str();
}

// select, reject, selectattr, rejectattr: keep the items for which a test (by default: truth) holds, or does not.
inline Value select(JinjaContext& cx, const std::string& name, const Value& operand, const JinjaArgs& args) {
    const bool by_attribute = name.ends_with("attr"), keep = name.starts_with("select");
    const size_t first = by_attribute ? 1 : 0;
    const Value* test = args.get(first, "test");
    JinjaArgs rest;
    for (size_t k = first + 1; k < args.values.size(); ++k) { rest.values.push_back(args.values[k]); rest.names.emplace_back(); }
    std::vector<Value> out;
    if (!operand.truthy()) return Value::of(std::move(out));           // none selects nothing
    for (const Value& item : jinja_items(cx, operand)) {
        cx.spend(1);
        const Value v = by_attribute ? path(item, text_arg(cx, args, 0, "attribute")) : item;
        if ((test ? jinja_test(cx, test->is_string() ? test->str() : "", v, rest) : v.truthy()) == keep) out.push_back(item);
    }
    return Value::of(std::move(out));
}

inline Value map(JinjaContext& cx, const Value& operand, const JinjaArgs& args) {
    std::vector<Value> out;
    const Value* attribute = args.get(99, "attribute");
    const Value* fallback = args.get(99, "default");
    JinjaArgs rest;
    for (size_t k = 1; k < args.values.size(); ++k) { rest.values.push_back(args.values[k]); rest.names.push_back(args.names[k]); }
    if (!operand.truthy()) return Value::of(std::move(out));
    for (const Value& item : jinja_items(cx, operand)) {
        cx.spend(1);
        if (attribute) {
            Value v = path(item, attribute->is_string() ? attribute->str() : "");
            out.push_back(v.is(Kind::undefined) && fallback ? *fallback : v);
        } else out.push_back(jinja_filter(cx, text_arg(cx, args, 0, "filter"), item, rest));
    }
    return Value::of(std::move(out));
}

inline Value sorted(JinjaContext& cx, std::vector<Value> items, bool reverse, const std::string* attribute) {
    std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
        cx.spend(1);
        const int c = attribute ? compare(cx, path(a, *attribute), path(b, *attribute)) : compare(cx, a, b);
        return reverse ? c > 0 : c < 0;
    });
    return Value::of(std::move(items));
}

inline JinjaText indented(const JinjaText& t, int64_t width, bool first, bool blank) {
    const std::string pad(size_t(std::clamp<int64_t>(width, 0, 1000)), ' ');
    std::string out;
    size_t at = 0;
    for (bool start = true; at <= t.text.size(); start = false) {
        const size_t end = std::min(t.text.find('\n', at), t.text.size());
        if (!start) out += '\n';
        if ((start ? first : true) && (blank || end > at)) out += pad;
        out.append(t.text, at, end - at);
        at = end + 1;
    }
    return t.made_over(std::move(out));
}

inline Value number_filter(JinjaContext& cx, const std::string& name, const Value& v, const JinjaArgs& args) {
    if (name == "abs" && v.is_number()) return v.is(Kind::number) ? Value::of(std::fabs(v.d)) : Value::of(std::abs(v.integer()));
    if (name == "round" && v.is_number()) {
        const Value* places = args.get(0, "precision");
        const double scale = std::pow(10.0, places ? double(std::clamp<int64_t>(places->integer(), -15, 15)) : 0.0);
        return Value::of(std::nearbyint(v.number() * scale) / scale);
    }
    double parsed = v.is_number() ? v.number() : 0;
    if (v.is_string()) {
        char* end = nullptr;
        parsed = std::strtod(v.str().c_str(), &end);
        if (v.str().empty() || *end) parsed = 0;
    }
    if (name == "int") return Value::of(std::fabs(parsed) < 9e18 ? int64_t(parsed) : int64_t(0));
    if (name == "float") return Value::of(parsed);
    cx.error(str(name, " of a value of type ", v.type_name()));
}

inline bool among(std::string_view name, std::initializer_list<std::string_view> names) { return std::find(names.begin(), names.end(), name) != names.end(); }

// Python's methods that change a list or a dict: no template may, as in the sandbox of the reference.
inline bool changes(const Value& self, std::string_view name) {
    if (self.is(Kind::list)) return among(name, {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
    return self.is(Kind::dict) && among(name, {"clear", "pop", "popitem", "setdefault", "update"});
}

}  // namespace jinja_builtins_room

std::vector<JinjaValue> jinja_items(JinjaContext& cx, const JinjaValue& v) {
    std::vector<JinjaValue> out;
    if (v.is(JinjaValue::Kind::list)) out = v.list->items;
    else if (v.is(JinjaValue::Kind::dict)) for (const auto& [k, x] : v.dict->items) out.push_back(k);
    else if (v.is_string()) {
        for (int64_t b = 0, n = int64_t(v.str().size()); b < n;) {
            int64_t e = b + 1;
            while (e < n && (v.str()[size_t(e)] & 0xc0) == 0x80) ++e;
            out.push_back(JinjaValue::of(v.s->part(b, e)));
            b = e;
        }
    } else if (!v.is(JinjaValue::Kind::undefined)) cx.error(str("cannot iterate over a value of type ", v.type_name()));
    cx.spend(int64_t(out.size()));
    return out;
}

JinjaValue jinja_attribute(const JinjaValue& object, std::string_view name) {
    if (object.is(JinjaValue::Kind::dict)) if (const JinjaValue* v = object.dict->find(name)) return *v;
    return {};
}

JinjaValue jinja_filter(JinjaContext& cx, const std::string& name, const JinjaValue& v, const JinjaArgs& args) {
    using namespace jinja_builtins_room;
    const auto string_operand = [&]() -> JinjaText { return jinja_text(cx, v); };
    if (name == "trim") { const Value* c = args.get(0, "chars"); return cx.text(strip(string_operand(), true, true, c && c->is_string() ? &c->str() : nullptr)); }
    if (name == "length" || name == "count") return Value::of(length(cx, v));
    if (name == "string") return cx.text(string_operand());
    if (name == "safe") { JinjaText t = string_operand(); t.markup = true; return cx.text(std::move(t)); }
    if (name == "upper" || name == "lower" || name == "capitalize" || name == "title") { const JinjaText t = string_operand(); return cx.text(t.made_over(cased(t.text, name))); }
    if (name == "tojson") {
        const Value* indent = args.get(0, "indent");
        std::string json = jinja_json(cx, v, indent && indent->is_number() ? std::clamp<int64_t>(indent->integer(), 0, 16) : -1);
        const int64_t n = int64_t(json.size());
        const std::optional<int64_t> message = jinja_contains_content(cx, v);
        return cx.text({std::move(json), message ? std::vector<JinjaSpan>{{0, n, *message}} : std::vector<JinjaSpan>{}, false});
    }
    if (name == "join") {
        const Value *glue = args.get(0, "d"), *attribute = args.get(1, "attribute");
        std::vector<Value> items = jinja_items(cx, v);
        if (attribute) for (Value& item : items) item = path(item, attribute->is_string() ? attribute->str() : "");
        return cx.text(joined(cx, items, glue ? jinja_text(cx, *glue) : JinjaText{}));
    }
    if (name == "default" || name == "d") {
        const Value *fallback = args.get(0, "default_value"), *falsy = args.get(1, "boolean");
        return v.is(Kind::undefined) || (falsy && falsy->truthy() && !v.truthy()) ? (fallback ? *fallback : Value::of("")) : v;
    }
    if (name == "list") return Value::of(jinja_items(cx, v));
    if (name == "items" || name == "dictsort") {
        if (v.is(Kind::undefined)) return Value::of(std::vector<Value>{});
        if (!v.is(Kind::dict)) cx.error(str(name, " of a value of type ", v.type_name()));
        std::vector<Value> out;
        v.dict->read_all();
        for (const auto& [k, x] : v.dict->items) out.push_back(Value::of({k, x}, true));
        if (name == "dictsort") std::stable_sort(out.begin(), out.end(), [&](const Value& a, const Value& b) { return compare(cx, a.list->items[0], b.list->items[0]) < 0; });
        return Value::of(std::move(out));
    }
    if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") return select(cx, name, v, args);
    if (name == "map") return map(cx, v, args);
    if (name == "first" || name == "last" || name == "reverse") {
        if (name == "reverse" && v.is_string()) { std::vector<Value> c = jinja_items(cx, v); std::reverse(c.begin(), c.end()); return cx.text(joined(cx, c, {})); }
        std::vector<Value> items = jinja_items(cx, v);
        if (name == "reverse") { std::reverse(items.begin(), items.end()); return Value::of(std::move(items)); }
        return items.empty() ? Value{} : name == "first" ? items.front() : items.back();
    }
    if (name == "unique") {
        std::vector<Value> out;
        for (const Value& item : jinja_items(cx, v)) {
            if (std::none_of(out.begin(), out.end(), [&](const Value& o) { return jinja_equal(cx, o, item); })) out.push_back(item);
        }
        return Value::of(std::move(out));
    }
    if (name == "sort") {
        const Value *reverse = args.get(0, "reverse"), *attribute = args.get(2, "attribute");
        return sorted(cx, jinja_items(cx, v), reverse && reverse->truthy(), attribute && attribute->is_string() ? &attribute->str() : nullptr);
    }
    if (name == "sum" || name == "min" || name == "max") {
        Value best = name == "sum" ? Value::of(int64_t(0)) : Value{};
        for (const Value& x : jinja_items(cx, v)) {
            if (name != "sum") { if (best.is(Kind::undefined) || (compare(cx, x, best) < 0) == (name == "min")) best = x; continue; }
            if (!x.is_number()) cx.error("sum: every item must be a number");
            best = best.is(Kind::number) || x.is(Kind::number) ? Value::of(best.number() + x.number()) : Value::of(int64_t(uint64_t(best.i) + uint64_t(x.integer())));
        }
        return best;
    }
    if (name == "replace") {
        const Value* count = args.get(2, "count");
        return cx.text(replaced(cx, string_operand(), text_arg(cx, args, 0, "old"), text_arg(cx, args, 1, "new"), count && count->is_number() ? count->integer() : -1));
    }
    if (name == "indent") {
        const Value *width = args.get(0, "width"), *first = args.get(1, "first"), *blank = args.get(2, "blank");
        return cx.text(indented(string_operand(), width && width->is_number() ? width->integer() : 4, first && first->truthy(), blank && blank->truthy()));
    }
    if (name == "abs" || name == "round" || name == "int" || name == "float") return number_filter(cx, name, v, args);
    cx.error(str("unsupported filter '", name, "'"));
}

bool jinja_test(JinjaContext& cx, const std::string& name, const JinjaValue& v, const JinjaArgs& args) {
    using namespace jinja_builtins_room;
    const Value* other = args.get(0, "other");
    if (name == "defined") return !v.is(Kind::undefined);
    if (name == "undefined") return v.is(Kind::undefined);
    if (name == "none") return v.is(Kind::none);
    if (name == "string") return v.is_string();
    if (name == "mapping") return v.is(Kind::dict);
    if (name == "iterable") return v.is(Kind::list) || v.is(Kind::dict) || v.is_string();
    if (name == "sequence") return v.is(Kind::list) || v.is_string() || v.is(Kind::dict);
    if (name == "number") return v.is_number();
    if (name == "integer") return v.is(Kind::integer);
    if (name == "float") return v.is(Kind::number);
    if (name == "boolean") return v.is(Kind::boolean);
    if (name == "true") return v.is(Kind::boolean) && v.b;
    if (name == "false") return v.is(Kind::boolean) && !v.b;
    if (name == "callable") return v.is(Kind::callable);
    if (name == "lower" || name == "upper") return v.is_string() && cased(v.str(), name) == v.str();
    if (name == "odd" || name == "even") { if (!v.is(Kind::integer)) cx.error(str("'", name, "' tests integers")); return (v.i % 2 != 0) == (name == "odd"); }
    if (!other) cx.error(str("unsupported test '", name, "'"));
    if (name == "divisibleby") { if (!v.is(Kind::integer) || !other->is(Kind::integer) || other->i == 0 || other->i == -1) cx.error("divisibleby: needs integers and a divisor above 0"); return v.i % other->i == 0; }
    if (name == "equalto" || name == "eq" || name == "==" || name == "sameas") return jinja_equal(cx, v, *other);
    if (name == "ne" || name == "!=") return !jinja_equal(cx, v, *other);
    if (name == "gt" || name == ">") return compare(cx, v, *other) > 0;
    if (name == "ge" || name == ">=") return compare(cx, v, *other) >= 0;
    if (name == "lt" || name == "<") return compare(cx, v, *other) < 0;
    if (name == "le" || name == "<=") return compare(cx, v, *other) <= 0;
    if (name == "in") {
        if (other->is_string()) cx.spend_on(*other->s);
        if (other->is_string()) return v.is_string() && other->str().find(v.str()) != std::string::npos;
        for (const Value& item : jinja_items(cx, *other)) if (jinja_equal(cx, item, v)) return true;
        return false;
    }
    cx.error(str("unsupported test '", name, "'"));
}

bool jinja_has_method(const JinjaValue& self, std::string_view name) {
    using jinja_builtins_room::among, jinja_builtins_room::changes;
    if (self.is_string()) return among(name, {"strip", "lstrip", "rstrip", "split", "startswith", "endswith", "upper", "lower", "title", "capitalize", "replace", "find", "count", "join", "splitlines", "isdigit", "removeprefix", "removesuffix"});
    if (self.is(JinjaValue::Kind::dict)) return among(name, {"items", "keys", "values", "get"}) || changes(self, name);
    if (self.is(JinjaValue::Kind::list)) return among(name, {"index", "count"}) || changes(self, name);
    return false;
}

JinjaValue jinja_method(JinjaContext& cx, const JinjaValue& self, const std::string& name, const JinjaArgs& args) {
    using namespace jinja_builtins_room;
    const Value *first = args.get(0, ""), *second = args.get(1, "");
    const std::string* text = first && first->is_string() ? &first->str() : nullptr;
    if (changes(self, name)) cx.error(str("'", name, "' would change a ", self.type_name(), ": only a namespace() can be changed"));
    if (self.is_string()) {
        const JinjaText& t = *self.s;
        cx.spend_on(t);
        if (name == "strip" || name == "lstrip" || name == "rstrip") return cx.text(strip(t, name != "rstrip", name != "lstrip", text));
        if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") return cx.text(t.made_over(cased(t.text, name)));
        if (name == "split") return Value::of(split(t, text, second && second->is_number() ? second->integer() : -1, cx));
        if (name == "splitlines") { std::vector<Value> lines = split(t, std::make_unique<std::string>("\n").get(), -1, cx); if (!lines.empty() && lines.back().str().empty()) lines.pop_back(); return Value::of(std::move(lines)); }
        if (name == "isdigit") return Value::of(!t.text.empty() && std::all_of(t.text.begin(), t.text.end(), [](char c) { return c >= '0' && c <= '9'; }));
        if (name == "join") return cx.text(joined(cx, first ? jinja_items(cx, *first) : std::vector<Value>{}, t));
        if ((name == "startswith" || name == "endswith") && first && first->is(Kind::list)) {
            cx.spend(int64_t(first->list->items.size()));
            for (const Value& p : first->list->items) if (p.is_string() && (name == "startswith" ? t.text.starts_with(p.str()) : t.text.ends_with(p.str()))) return Value::of(true);
            return Value::of(false);
        }
        if (!text) cx.error(str(name, "() of a text needs a text"));
        if (name == "startswith") return Value::of(t.text.starts_with(*text));
        if (name == "endswith") return Value::of(t.text.ends_with(*text));
        if (name == "removeprefix") return cx.text(t.part(t.text.starts_with(*text) ? int64_t(text->size()) : 0, int64_t(t.text.size())));
        if (name == "removesuffix") return cx.text(t.part(0, int64_t(t.text.size() - (t.text.ends_with(*text) ? text->size() : 0))));
        if (name == "find") { const size_t at = t.text.find(*text); return Value::of(at == t.text.npos ? int64_t(-1) : int64_t(at)); }
        if (name == "count") { int64_t n = 0; for (size_t at = 0; !text->empty() && (at = t.text.find(*text, at)) != t.text.npos; at += text->size()) ++n; return Value::of(n); }
        if (name == "replace") { const Value* count = args.get(2, "count"); return cx.text(replaced(cx, t, *text, text_arg(cx, args, 1, "new"), count && count->is_number() ? count->integer() : -1)); }
    } else if (self.is(Kind::dict)) {
        if (name == "get") { const Value* v = first ? self.dict->find(cx, *first) : nullptr; return v ? *v : second ? *second : Value::none(); }
        std::vector<Value> out;
        if (name != "keys") self.dict->read_all();
        for (const auto& [k, v] : self.dict->items) out.push_back(name == "keys" ? k : name == "values" ? v : Value::of({k, v}, true));
        return Value::of(std::move(out));
    } else if (self.is(Kind::list)) {
        const std::vector<Value>& items = self.list->items;
        if (name == "count" && first) return Value::of(int64_t(std::count_if(items.begin(), items.end(), [&](const Value& v) { return jinja_equal(cx, v, *first); })));
        if (name == "index" && first) {
            for (size_t k = 0; k < items.size(); ++k) if (jinja_equal(cx, items[k], *first)) return Value::of(int64_t(k));
            cx.error("index(): not in the list");
        }
    }
    cx.error(str("unsupported method '", name, "' of a value of type ", self.type_name()));
}

}  // namespace qlora
