// jinja_filters_text.cpp - filters that make a text.
#include "src/text/jinja_contract.h"
#include "src/text/jinja_format.h"
#include "src/text/jinja_text.h"
#include "src/text/unicode.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_filters_text_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;

template <JinjaCase how>
Value cased(JinjaCall& call) { return call.cx.text(text_cased(call.text(), how)); }

Value escape(JinjaCall& call) { return call.cx.text(text_escaped(call.text())); }

Value indent(JinjaCall& call) {                        // s, width=4, first=false, blank=false
    if (!call.self.is_string()) call.error(str("of a value of type ", call.self.type_name()));
    JinjaText s = *call.self.s, pad, newline{"\n", {}, s.markup};
    if (call.has(0) && call.at(0).is_string()) pad = *call.at(0).s;
    else pad.text.assign(size_t(std::clamp<int64_t>(call.whole(0, 4), 0, 100'000)), ' ');
    if (s.markup && !pad.markup) pad = text_escaped(pad);
    if (call.has(0) && call.at(0).is_whole() && call.at(0).integer() > 100'000)
        call.error("a width above 100000 is not supported");
    s.append(newline);
    const std::vector<JinjaText> lines = text_lines(call.cx, s, false);
    JinjaText out;
    out.markup = s.markup;
    if (call.flag(1)) out.append(pad);
    for (size_t k = 0; k < lines.size(); ++k) {
        if (k) out.append(newline);
        if (k && (call.flag(2) || !lines[k].text.empty())) out.append(pad);
        out.append(lines[k]);
        call.cx.check_size(int64_t(out.text.size()));
    }
    return call.cx.text(std::move(out));
}

Value center(JinjaCall& call) {
    const JinjaText t = call.text();
    const int64_t width = call.whole(0, 80), margin = width - text_length(t.text);
    if (margin <= 0) return call.cx.text(t);
    const int64_t left = margin / 2 + (margin & width & 1);
    return call.cx.text(text_padded(call.cx, t, left, margin - left));
}

Value truncate(JinjaCall& call) {                      // s, length=255, killwords=false, end="...", leeway=5
    const JinjaText dots{"...", {}, false}, &end = call.has(2) ? (call.string(2), *call.at(2).s) : dots;
    const int64_t length = call.whole(0, 255), leeway = call.given(3) ? call.whole(3, 5) : 5,
                  tail = text_length(end.text);
    if (length < tail || leeway < 0) call.error("the length must hold the end, and the leeway be at least 0");
    if (call.self.is(Kind::undefined)) return call.self;
    if (!call.self.is_string()) call.error(str("of a value of type ", call.self.type_name(), " is not supported"));
    const JinjaText& s = *call.self.s;
    if (s.markup != end.markup && (s.markup || end.markup)) call.error("of a safe text is not supported");
    call.cx.spend_on(s);
    if (text_length(s.text) <= length + leeway) return call.self;
    JinjaText kept = s.part(0, int64_t(text_offset(s.text, length - tail)));
    if (!call.flag(1))
        if (const size_t space = kept.text.rfind(' '); space != kept.text.npos) kept = kept.part(0, int64_t(space));
    kept.append(end);
    return call.cx.text(std::move(kept));
}

Value replace(JinjaCall& call) {                       // old, new, count=none
    const JinjaText from = jinja_text(call.cx, call.at(0)), to = jinja_text(call.cx, call.at(1));
    JinjaText t = call.text();
    t.markup = false;                                  // str(s)
    return call.cx.text(text_replace(call.cx, t, from.text, to, call.given(2) ? call.whole(2, -1) : -1));
}

Value wordcount(JinjaCall& call) {
    const JinjaText t = call.text();
    int64_t words = 0;
    bool inside = false;
    for (size_t at = 0; at < t.text.size(); at += size_t(utf8_at(t.text, at).bytes)) {
        const char32_t c = utf8_at(t.text, at).code;
        const bool word = c == '_' || (char_class(c) & (char_letter | char_number));
        words += word && !inside;
        inside = word;
    }
    return Value::of(words);
}

JinjaText url_quoted(JinjaCall& call, const Value& v, bool query) {
    const JinjaText t = jinja_text(call.cx, v);
    std::string out;
    for (const char c : t.text) {
        const bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                           std::string_view("_.-~").find(c) != std::string_view::npos || (!query && c == '/');
        constexpr char hex[] = "0123456789ABCDEF";
        if (plain) out += c;
        else if (query && c == ' ') out += '+';
        else out.append(1, '%').append(1, hex[uint8_t(c) >> 4]) += hex[c & 15];
    }
    JinjaText quoted = t.made_over(std::move(out));
    quoted.markup = false;
    return quoted;
}
Value urlencode(JinjaCall& call) {
    if (call.self.is_string() || call.self.is_number() || call.self.is(Kind::none))
        return call.cx.text(url_quoted(call, call.self, false));
    std::vector<std::pair<Value, Value>> pairs;
    if (call.self.is_mapping()) pairs = call.self.dict->items;
    else for (const Value& item : jinja_items(call.cx, call.self)) {
        const std::vector<Value> pair = jinja_items(call.cx, item);
        if (pair.size() != 2) call.error("needs pairs");
        pairs.emplace_back(pair[0], pair[1]);
    }
    JinjaText out;
    for (const auto& [key, value] : pairs) {
        if (&key != &pairs[0].first) out.text += '&';
        out.append(url_quoted(call, key, true));
        out.text += '=';
        out.append(url_quoted(call, value, true));
    }
    return call.cx.text(std::move(out));
}

// transformers' own: x, ensure_ascii=False, indent=None, separators=None, sort_keys=False
Value tojson(JinjaCall& call) {
    JinjaJsonStyle style;
    style.ascii = call.flag(0);
    style.sort_keys = call.flag(3);
    if (call.given(1)) {
        if (call.at(1).is_string()) style.indent = call.at(1).str();
        else style.indent = std::string(size_t(std::clamp<int64_t>(call.whole(1, 0), 0, 1000)), ' ');
        style.between = ",";
    }
    if (call.given(2)) {
        const std::vector<Value> pair = jinja_items(call.cx, call.at(2));
        if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
            call.error("'separators' must be two texts");
        style.between = pair[0].str();
        style.colon = pair[1].str();
    }
    JinjaText json{jinja_json(call.cx, call.self, style), {}, false};
    if (const std::optional<int64_t> message = jinja_contains_content(call.cx, call.self))
        json.content.push_back({0, int64_t(json.text.size()), *message});
    return call.cx.text(std::move(json));
}

Value join(JinjaCall& call) {                          // d="", attribute=none
    std::vector<Value> items = jinja_items(call.cx, call.self);
    if (call.given(1)) for (Value& item : items) item = jinja_path(call.cx, item, call.at(1));
    JinjaText joined = text_join(call.cx, items, call.has(0) ? jinja_text(call.cx, call.at(0)) : JinjaText{}, false);
    joined.markup = false;
    return call.cx.text(std::move(joined));
}

Value format(JinjaCall& call) {
    if (!call.rest.empty() && !call.keywords.empty()) call.error("takes positional arguments or keywords, not both");
    Value arguments = Value::of(call.rest, Value::Flavour::tuple);
    if (!call.keywords.empty()) {
        arguments = Value::empty_dict();
        for (auto& [name, value] : call.keywords) arguments.dict->add(Value::of(name), value);
    }
    return call.cx.text(jinja_percent_format(call.cx, call.text(), arguments));
}

}  // namespace jinja_filters_text_room

const JinjaTable& jinja_text_filters() {
    using namespace jinja_filters_text_room;
    static const JinjaTable table = {
        {"upper", "", cased<JinjaCase::upper>},
        {"lower", "", cased<JinjaCase::lower>},
        {"capitalize", "", cased<JinjaCase::capitalize>},
        {"title", "", cased<JinjaCase::filter_title>},
        {"trim", "chars=",
         [](JinjaCall& c) { return c.cx.text(text_strip(c.text(), true, true, c.given(0) ? &c.string(0) : nullptr)); }},
        {"string", "", [](JinjaCall& c) { return c.cx.text(c.text()); }},
        {"safe", "",
         [](JinjaCall& c) {
             JinjaText t = c.text();
             t.markup = true;
             return c.cx.text(std::move(t));
         }},
        {"escape", "", escape},
        {"e", "", escape},
        {"forceescape", "", nullptr},
        {"replace", "old, new, count=", replace},
        {"indent", "width=, first=, blank=", indent},
        {"center", "width=", center},
        {"truncate", "length=, killwords=, end=, leeway=", truncate},
        {"wordcount", "", wordcount},
        {"urlencode", "", urlencode},
        {"format", "*, **", format},
        {"join", "d=, attribute=", join},
        {"tojson", "ensure_ascii=, indent=, separators=, sort_keys=", tojson},
        {"wordwrap", "*, **", nullptr},
        {"striptags", "*, **", nullptr},
        {"urlize", "*, **", nullptr},
        {"xmlattr", "*, **", nullptr},
        {"pprint", "*, **", nullptr},
        {"filesizeformat", "*, **", nullptr},
    };
    return table;
}

}}  // namespace qlora
