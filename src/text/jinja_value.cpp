// jinja_value.cpp - truth, equality, printing and JSON of template values, as Python does them.
#include "src/text/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

namespace qlora::inline v0_1 {
namespace jinja_value_room {

constexpr int max_depth = 200;                         // a namespace can hold itself
[[noreturn]] inline void too_deep() { fail(Errc::format, "chat template: a value is nested deeper than ", max_depth); }

// Moves what a container holds to `pending`.
inline void take_apart(JinjaList& list, std::vector<JinjaValue>& pending) {
    std::move(list.items.begin(), list.items.end(), std::back_inserter(pending));
    list.items.clear();
}
inline void take_apart(JinjaDict& dict, std::vector<JinjaValue>& pending) {
    for (auto& [key, value] : dict.items) {
        pending.push_back(std::move(key));
        pending.push_back(std::move(value));
    }
    dict.items.clear();
}
inline void take_apart(JinjaCallable& callable, std::vector<JinjaValue>& pending) {
    if (callable.self && callable.self.use_count() == 1) pending.push_back(std::move(*callable.self));
    callable.self.reset();
}

// Destroys a container that nobody else holds, and everything in it that nobody else holds, in constant stack.
template <class Container>
void destroy(Container& container) {
    std::vector<JinjaValue> pending;
    try {
        take_apart(container, pending);
        while (!pending.empty()) {
            const JinjaValue v = std::move(pending.back());
            pending.pop_back();
            if (v.list.use_count() == 1) take_apart(*v.list, pending);
            if (v.dict.use_count() == 1) take_apart(*v.dict, pending);
            if (v.call.use_count() == 1) take_apart(*v.call, pending);
        }
    } catch (const std::bad_alloc&) {                  // a destructor may not throw: what is left goes as it lies, one within the other
    }
}

inline std::string float_text(double d) {
    if (std::isnan(d)) return "nan";
    if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
    char buffer[40];
    const auto [end, ec] = std::to_chars(buffer, buffer + sizeof buffer, d);
    std::string out(buffer, end);
    if (out.find_first_of(".e") == out.npos) out += ".0";
    return out;
}

inline std::string quoted(const std::string& s) {      // Python's repr: single quotes unless only single quotes are inside
    const char q = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
    std::string out(1, q);
    for (const char c : s) {
        if (c == q || c == '\\') { out += '\\'; out += c; }
        else if (c == '\n') out += "\\n";
        else if (c == '\t') out += "\\t";
        else if (c == '\r') out += "\\r";
        else out += c;
    }
    return out + q;
}

inline std::string repr(JinjaContext& cx, const JinjaValue& v, int depth) {
    if (depth > max_depth) too_deep();
    cx.spend(1);
    using Kind = JinjaValue::Kind;
    switch (v.kind) {
        case Kind::string: cx.spend_on(*v.s); return quoted(v.str());
        case Kind::list: {
            std::string out(1, v.list->tuple ? '(' : '[');
            for (size_t k = 0; k < v.list->items.size(); ++k) out += (k ? ", " : "") + repr(cx, v.list->items[k], depth + 1);
            if (v.list->tuple && v.list->items.size() == 1) out += ',';
            return out + (v.list->tuple ? ')' : ']');
        }
        case Kind::dict: {
            v.dict->read_all();
            std::string out = "{";
            for (size_t k = 0; k < v.dict->items.size(); ++k)
                out += (k ? ", " : "") + repr(cx, v.dict->items[k].first, depth + 1) + ": " + repr(cx, v.dict->items[k].second, depth + 1);
            return out + '}';
        }
        case Kind::undefined: return "Undefined";
        default: return jinja_text(cx, v).text;
    }
}

}  // namespace jinja_value_room

bool JinjaValue::truthy() const {
    switch (kind) {
        case Kind::undefined: case Kind::none: return false;
        case Kind::boolean: return b;
        case Kind::integer: return i != 0;
        case Kind::number: return d != 0;
        case Kind::string: return !s->text.empty();
        case Kind::list: return !list->items.empty();
        case Kind::dict: return dict->is_namespace || !dict->items.empty();
        case Kind::callable: return true;
    }
    return false;
}

const char* JinjaValue::type_name() const {
    static const char* const names[] = {"undefined", "none", "boolean", "integer", "float", "string", "list", "dict", "callable"};
    return names[int(kind)];
}

JinjaValue JinjaValue::from_json(const Json& j, bool content, int64_t message, bool top) {
    switch (j.kind()) {
        case Json::Kind::null: return none();
        case Json::Kind::boolean: return of(j.boolean());
        case Json::Kind::integer: return of(j.integer());
        case Json::Kind::number: return of(j.number());
        case Json::Kind::string: {
            JinjaText t{j.string(), {}, false};
            if (content && !t.text.empty()) t.content.push_back({0, int64_t(t.text.size()), message});
            return of(std::move(t));
        }
        case Json::Kind::array: {
            std::vector<JinjaValue> items;
            for (const Json& x : j.array()) items.push_back(from_json(x, content, message));
            return of(std::move(items));
        }
        case Json::Kind::object: {
            JinjaValue v = empty_dict();
            v.dict->message = message;
            // The role of a message is not content, but where it is printed the message is: its header begins there.
            const auto role = [&](const Json& x) { return of(JinjaText{x.string(), {}, false, {{0, int64_t(x.string().size()), message}}}); };
            for (const auto& [key, value] : j.object())
                v.dict->items.emplace_back(from_json(Json(key), content && !top, message), top && key == "role" && value.is_string() ? role(value) : from_json(value, content, message));
            return v;
        }
    }
    return {};
}

JinjaList::~JinjaList() { jinja_value_room::destroy(*this); }
JinjaDict::~JinjaDict() { jinja_value_room::destroy(*this); }
JinjaCallable::~JinjaCallable() { jinja_value_room::destroy(*this); }

JinjaValue* JinjaDict::find(JinjaContext& cx, const JinjaValue& key) {
    if (reads && key.is_string()) reads->insert(key.str());
    return peek(cx, key);
}
JinjaValue* JinjaDict::peek(JinjaContext& cx, const JinjaValue& key) {
    for (auto& [k, v] : items) if (jinja_equal(cx, k, key)) return &v;
    return nullptr;
}
JinjaValue* JinjaDict::find(std::string_view key) {
    if (reads) reads->emplace(key);
    for (auto& [k, v] : items) if (k.is_string() && k.str() == key) return &v;
    return nullptr;
}
void JinjaDict::read_all() const {
    if (reads) for (const auto& [key, value] : items) reads->insert(key.str());
}
void JinjaDict::set(JinjaContext& cx, JinjaValue key, JinjaValue value) {
    if (JinjaValue* old = peek(cx, key)) *old = std::move(value);
    else items.emplace_back(std::move(key), std::move(value));
}

bool jinja_equal(JinjaContext& cx, const JinjaValue& a, const JinjaValue& b, int depth) {
    if (depth > jinja_value_room::max_depth) jinja_value_room::too_deep();
    cx.spend(1);
    using Kind = JinjaValue::Kind;
    if (a.is_number() && b.is_number()) return a.kind != Kind::number && b.kind != Kind::number ? a.integer() == b.integer() : a.number() == b.number();
    if (a.kind != b.kind) return false;
    switch (a.kind) {
        case Kind::undefined: case Kind::none: return true;
        case Kind::string:
            if (a.str().size() == b.str().size()) cx.spend(int64_t(a.str().size()) / 64);
            return a.str() == b.str();
        case Kind::list:
            return std::equal(a.list->items.begin(), a.list->items.end(), b.list->items.begin(), b.list->items.end(),
                              [&](const JinjaValue& x, const JinjaValue& y) { return jinja_equal(cx, x, y, depth + 1); });
        case Kind::dict: {
            if (a.dict->items.size() != b.dict->items.size()) return false;
            for (const auto& [k, v] : a.dict->items) {
                const JinjaValue* other = b.dict->peek(cx, k);
                if (!other || !jinja_equal(cx, v, *other, depth + 1)) return false;
            }
            return true;
        }
        default: return a.call == b.call;
    }
}

JinjaText jinja_text(JinjaContext& cx, const JinjaValue& v) {
    using Kind = JinjaValue::Kind;
    switch (v.kind) {
        case Kind::undefined: return {};
        case Kind::none: return {"None", {}, false};
        case Kind::boolean: return {v.b ? "True" : "False", {}, false};
        case Kind::integer: return {std::to_string(v.i), {}, false};
        case Kind::number: return {jinja_value_room::float_text(v.d), {}, false};
        case Kind::string: cx.spend_on(*v.s); return *v.s;
        case Kind::callable: return {"<" + v.call->name + ">", {}, false};
        default: {
            JinjaText t{jinja_value_room::repr(cx, v, 0), {}, false};
            if (const std::optional<int64_t> message = jinja_contains_content(cx, v)) t.content.push_back({0, int64_t(t.text.size()), *message});
            return t;
        }
    }
}

std::string jinja_json(JinjaContext& cx, const JinjaValue& v, int64_t indent, int depth) {
    if (depth > jinja_value_room::max_depth) jinja_value_room::too_deep();
    cx.spend(1);
    using Kind = JinjaValue::Kind;
    const std::string line = indent >= 0 ? "\n" + std::string(size_t(indent * (depth + 1)), ' ') : "";
    const std::string last = indent >= 0 ? "\n" + std::string(size_t(indent * depth), ' ') : "";
    const std::string comma = indent >= 0 ? "," + line : ", ";
    switch (v.kind) {
        case Kind::undefined: fail(Errc::format, "chat template: an undefined value cannot be written as JSON");
        case Kind::none: return "null";
        case Kind::boolean: return v.b ? "true" : "false";
        case Kind::string: cx.spend_on(*v.s); return json_quote(v.str());
        case Kind::list: {
            if (v.list->items.empty()) return "[]";
            std::string out = "[" + line;
            for (size_t k = 0; k < v.list->items.size(); ++k) out += (k ? comma : "") + jinja_json(cx, v.list->items[k], indent, depth + 1);
            return out + last + "]";
        }
        case Kind::dict: {
            v.dict->read_all();
            if (v.dict->items.empty()) return "{}";
            std::string out = "{" + line;
            for (size_t k = 0; k < v.dict->items.size(); ++k)
                out += (k ? comma : "") + json_quote(jinja_text(cx, v.dict->items[k].first).text) + ": " + jinja_json(cx, v.dict->items[k].second, indent, depth + 1);
            return out + last + "}";
        }
        case Kind::callable: fail(Errc::format, "chat template: a function cannot be written as JSON");
        default: return jinja_text(cx, v).text;
    }
}

std::optional<int64_t> jinja_contains_content(JinjaContext& cx, const JinjaValue& v, int depth) {
    if (depth > jinja_value_room::max_depth) jinja_value_room::too_deep();
    cx.spend(1);
    std::optional<int64_t> message;
    const auto add = [&](const std::optional<int64_t>& found) { if (found) message = message.value_or(*found) == *found ? *found : -1; };
    if (v.is_string()) for (const JinjaSpan& s : v.s->content) add(s.message);
    if (v.is(JinjaValue::Kind::list)) for (const JinjaValue& x : v.list->items) add(jinja_contains_content(cx, x, depth + 1));
    if (v.is(JinjaValue::Kind::dict))
        for (const auto& [key, x] : v.dict->items) for (const JinjaValue* part : {&key, &x}) add(jinja_contains_content(cx, *part, depth + 1));
    return message;
}

}  // namespace qlora
