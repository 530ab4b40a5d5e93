// jinja_print.cpp - str(), repr() and json.dumps() of template values.
#include "src/text/jinja_loop.h"
#include "src/text/jinja_number.h"
#include "src/text/jinja_value.h"
#include "src/text/unicode.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_print_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

constexpr int max_depth = 200;

inline void hex_escape(std::string& out, char32_t c) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", unsigned(c));
    out += buffer;
}

// Python's repr: single quotes unless only single quotes are inside
inline std::string python_quoted(const std::string& s) {
    const char q = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
    std::string out(1, q);
    for (size_t at = 0; at < s.size();) {
        const Utf8Char c = utf8_at(s, at);
        if (c.code == char32_t(q) || c.code == '\\') { out += '\\'; out += s[at]; }
        else if (c.code == '\n') out += "\\n";
        else if (c.code == '\t') out += "\\t";
        else if (c.code == '\r') out += "\\r";
        else if (c.valid && !python_printable(c.code)) hex_escape(out, c.code);
        else out.append(s, at, size_t(c.bytes));
        at += size_t(c.bytes);
    }
    return out + q;
}

inline std::string repr(JinjaContext& cx, const Value& v, int depth);

inline std::string items_repr(JinjaContext& cx, const std::vector<Value>& items, int depth) {
    std::string out;
    for (size_t k = 0; k < items.size(); ++k) {
        out += (k ? ", " : "") + repr(cx, items[k], depth + 1);
        cx.check_size(int64_t(out.size()));
    }
    return out;
}

inline std::string list_repr(JinjaContext& cx, const Value& v, int depth) {
    const JinjaList& list = *v.list;
    switch (list.flavour) {
        case Flavour::list: return '[' + items_repr(cx, list.items, depth) + ']';
        case Flavour::tuple:
        case Flavour::group: return '(' + items_repr(cx, list.items, depth) + (list.items.size() == 1 ? ",)" : ")");
        case Flavour::range:
            return str("range(", list.start, ", ", list.stop, list.step == 1 ? "" : str(", ", list.step), ")");
        case Flavour::keys: return "dict_keys([" + items_repr(cx, list.items, depth) + "])";
        case Flavour::values: return "dict_values([" + items_repr(cx, list.items, depth) + "])";
        case Flavour::items: return "dict_items([" + items_repr(cx, list.items, depth) + "])";
        case Flavour::generator: break;
    }
    cx.error(
        "prints what a lazy filter (map, select, ...) returns, which the reference shows as an address; use |list or "
        "|join");
}

inline std::string dict_repr(JinjaContext& cx, const Value& v, int depth) {
    v.dict->read_all();
    std::string out = v.dict->is_namespace ? "<Namespace {" : "{";
    bool first = true;
    for (const auto& [key, value] : v.dict->items) {
        out += (first ? "" : ", ") + repr(cx, key, depth + 1) + ": " + repr(cx, value, depth + 1);
        first = false;
        cx.check_size(int64_t(out.size()));
    }
    return out + (v.dict->is_namespace ? "}>" : "}");
}

inline std::string repr(JinjaContext& cx, const Value& v, int depth) {
    if (depth > max_depth) cx.error(str("a value is nested deeper than ", max_depth));
    cx.spend(1);
    switch (v.kind) {
        case Kind::undefined: return "Undefined";
        case Kind::string:
            cx.spend_on(*v.s);
            return v.s->markup ? "Markup(" + python_quoted(v.str()) + ")" : python_quoted(v.str());
        case Kind::list: return list_repr(cx, v, depth);
        case Kind::dict: return dict_repr(cx, v, depth);
        case Kind::callable:
            if (!v.call->macro || v.call->name.empty())
                cx.error("prints a function, which the reference shows as an address");
            return "<Macro " + python_quoted(v.call->name) + ">";
        default: return jinja_text(cx, v).text;
    }
}

inline std::string json_string(const std::string& s, bool ascii) {
    std::string out = json_quote(s);
    if (!ascii) return out;
    std::string escaped;
    for (size_t at = 0; at < out.size();) {
        const Utf8Char c = utf8_at(out, at);
        char buffer[16] = "";
        if (c.code >= 0x10000)
            std::snprintf(buffer, sizeof buffer, "\\u%04x\\u%04x", unsigned(0xD800 + ((c.code - 0x10000) >> 10)),
                          unsigned(0xDC00 + ((c.code - 0x10000) & 0x3FF)));
        else if (c.code >= 0x7F) std::snprintf(buffer, sizeof buffer, "\\u%04x", unsigned(c.code));
        if (c.code >= 0x7F) escaped += buffer;
        else escaped.append(out, at, size_t(c.bytes));
        at += size_t(c.bytes);
    }
    return escaped;
}

inline std::string json_number(JinjaContext& cx, const Value& v) {
    jinja_need_exact(cx, v);
    if (v.is(Kind::integer)) return std::to_string(v.i);
    if (std::isnan(v.d)) return "NaN";
    if (std::isinf(v.d)) return v.d < 0 ? "-Infinity" : "Infinity";
    return jinja_float_text(v.d);
}

// A key of a JSON object: texts, and the constants and numbers that json.dumps writes as texts.
inline std::string json_key(JinjaContext& cx, const Value& key, bool ascii) {
    switch (key.kind) {
        case Kind::string: return json_string(key.str(), ascii);
        case Kind::none: return "\"null\"";
        case Kind::boolean: return key.b ? "\"true\"" : "\"false\"";
        case Kind::integer: case Kind::number: return '"' + json_number(cx, key) + '"';
        default: cx.error(str("tojson: a key of type ", key.type_name()));
    }
}

// Indices of a dict's entries in the order of their keys, which must all be texts or all be numbers.
inline std::vector<const std::pair<Value, Value>*> entries(JinjaContext& cx, const JinjaDict& dict, bool sorted) {
    std::vector<const std::pair<Value, Value>*> out;
    for (const auto& entry : dict.items) out.push_back(&entry);
    if (sorted)
        std::stable_sort(out.begin(), out.end(),
                         [&](const auto* a, const auto* b) { return jinja_compare(cx, a->first, b->first) == -1; });
    return out;
}

}  // namespace jinja_print_room

JinjaText jinja_repr(JinjaContext& cx, const JinjaValue& v) {
    JinjaText t{jinja_print_room::repr(cx, v, 0), {}, false};
    if (const std::optional<int64_t> message = jinja_contains_content(cx, v))
        t.content.push_back({0, int64_t(t.text.size()), *message});
    return t;
}

JinjaText jinja_text(JinjaContext& cx, const JinjaValue& v) {
    using Kind = JinjaValue::Kind;
    switch (v.kind) {
        case Kind::undefined: return {};
        case Kind::none: return {"None", {}, false};
        case Kind::boolean: return {v.b ? "True" : "False", {}, false};
        case Kind::integer: return {std::to_string(v.i), {}, false};
        case Kind::number: jinja_need_exact(cx, v); return {jinja_float_text(v.d), {}, false};
        case Kind::string: cx.spend_on(*v.s); return *v.s;
        case Kind::loop: return jinja_loop_text(cx, *v.loop);
        default: return jinja_repr(cx, v);
    }
}

std::string jinja_json(JinjaContext& cx, const JinjaValue& v, const JinjaJsonStyle& style, int depth) {
    using namespace jinja_print_room;
    if (depth > max_depth) cx.error(str("tojson: a value is nested deeper than ", max_depth));
    cx.spend(1);
    const auto line = [&](int levels) {
        std::string out = style.indent ? "\n" : "";
        for (int k = 0; style.indent && k < levels; ++k) out += *style.indent;
        return out;
    };
    const auto join = [&](char open, const std::vector<std::string>& parts, char close) {
        if (parts.empty()) return std::string{open, close};
        std::string out = open + line(depth + 1);
        for (size_t k = 0; k < parts.size(); ++k) out += (k ? style.between + line(depth + 1) : "") + parts[k];
        cx.check_size(int64_t(out.size()));
        cx.spend(int64_t(out.size()) / 64);
        return out + line(depth) + close;
    };
    std::vector<std::string> parts;
    switch (v.kind) {
        case Kind::none: return "null";
        case Kind::boolean: return v.b ? "true" : "false";
        case Kind::integer: case Kind::number: return json_number(cx, v);
        case Kind::string: cx.spend_on(*v.s); return json_string(v.str(), style.ascii);
        case Kind::list:
            if (v.list->flavour > Flavour::group) break;
            for (const Value& item : v.list->items) parts.push_back(jinja_json(cx, item, style, depth + 1));
            return join('[', parts, ']');
        case Kind::dict:
            if (v.dict->is_namespace) break;
            v.dict->read_all();
            for (const auto* entry : entries(cx, *v.dict, style.sort_keys))
                parts.push_back(json_key(cx, entry->first, style.ascii) + style.colon +
                                jinja_json(cx, entry->second, style, depth + 1));
            return join('{', parts, '}');
        default: break;
    }
    cx.error(str("tojson: a value of type ", v.type_name(), " cannot be written as JSON"));
}

}}  // namespace qlora
