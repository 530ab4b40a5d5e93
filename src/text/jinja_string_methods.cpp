// jinja_string_methods.cpp - the methods of Python's str. Positions are counted in characters.
#include "src/text/jinja_format.h"
#include "src/text/jinja_methods.h"
#include "src/text/jinja_text.h"
#include "src/text/unicode.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_string_methods_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

const JinjaText& own(const JinjaCall& call) { return *call.self.s; }
const std::string* chars(JinjaCall& call) { return call.given(0) ? &call.string(0) : nullptr; }

template <bool left, bool right>
Value strip(JinjaCall& call) { return call.cx.text(text_strip(own(call), left, right, chars(call))); }
template <JinjaCase how>
Value cased(JinjaCall& call) { return call.cx.text(text_cased(own(call), how)); }
Value split(JinjaCall& call) { return Value::of(text_split(call.cx, own(call), chars(call), call.whole(1, -1))); }
Value rsplit(JinjaCall& call) { return Value::of(text_rsplit(call.cx, own(call), chars(call), call.whole(1, -1))); }
Value splitlines(JinjaCall& call) {
    std::vector<Value> out;
    for (JinjaText& line : text_lines(call.cx, own(call), call.flag(0))) out.push_back(Value::of(std::move(line)));
    return Value::of(std::move(out));
}

// The part that `start` and `end` (arguments 1 and 2) name; nothing where start lies behind the text's end.
struct Window { std::string_view text; int64_t first = 0; bool valid = true; };
Window window(JinjaCall& call) {
    const std::string_view s = own(call).text;
    call.cx.spend_on(own(call));
    if (!call.given(1) && !call.given(2)) return {s, 0, true};
    const int64_t n = text_length(s);
    const auto bound = [&](size_t k, int64_t otherwise) {
        if (!call.given(k)) return otherwise;
        const int64_t at = call.whole(k, 0);
        return at < 0 ? std::max<int64_t>(at + n, 0) : at;
    };
    const int64_t start = bound(1, 0), end = std::min(bound(2, n), n);
    if (start > n || start > end) return {{}, 0, false};
    const size_t b = text_offset(s, start), e = text_offset(s, end);
    return {s.substr(b, e - b), start, true};
}
int64_t position(JinjaCall& call, bool from_the_right) {
    const Window w = window(call);
    const std::string& what = call.string(0);
    if (!w.valid) return -1;
    size_t at = 0;
    if (what.empty()) at = from_the_right ? w.text.size() : 0;
    else if (!from_the_right) at = JinjaFinder(what).find(w.text, 0);
    else {
        const std::string back(w.text.rbegin(), w.text.rend()), needle(what.rbegin(), what.rend());
        at = JinjaFinder(needle).find(back, 0);
        if (at != back.npos) at = back.size() - at - needle.size();
    }
    return at == w.text.npos ? -1 : w.first + text_length(w.text.substr(0, at));
}
template <bool from_the_right, bool must>
Value find(JinjaCall& call) {
    const int64_t at = position(call, from_the_right);
    if (must && at < 0) call.error("the text is not there");
    return Value::of(at);
}
Value count(JinjaCall& call) {
    const Window w = window(call);
    return Value::of(w.valid ? text_count(w.text, call.string(0)) : int64_t(0));
}
template <bool at_the_end>
Value touches(JinjaCall& call) {                       // startswith, endswith: one text or a tuple of them
    const Window w = window(call);
    if (call.at(0).is_string())
        return Value::of(w.valid &&
                         (at_the_end ? w.text.ends_with(call.string(0)) : w.text.starts_with(call.string(0))));
    if (!call.at(0).is(Flavour::tuple))
        call.error(str("needs a text or a tuple of texts, not ", call.at(0).type_name()));
    call.cx.spend(int64_t(call.at(0).list->items.size()));
    bool found = false;
    for (const Value& p : call.at(0).list->items) {
        if (!p.is_string()) call.error("needs a tuple of texts");
        call.cx.spend(int64_t(p.str().size()) / 64);
        if ((found = w.valid && (at_the_end ? w.text.ends_with(p.str()) : w.text.starts_with(p.str())))) break;
    }
    return Value::of(found);
}
Value removeprefix(JinjaCall& call) {
    const JinjaText& t = own(call);
    return call.cx.text(
        t.part(t.text.starts_with(call.string(0)) ? int64_t(call.string(0).size()) : 0, int64_t(t.text.size())));
}
Value removesuffix(JinjaCall& call) {
    const JinjaText& t = own(call);
    return call.cx.text(
        t.part(0, int64_t(t.text.size() - (t.text.ends_with(call.string(0)) ? call.string(0).size() : 0))));
}
template <bool from_the_right>
Value partition(JinjaCall& call) {
    const JinjaText& t = own(call);
    const std::string& what = call.string(0);
    call.cx.spend_on(t);
    if (what.empty()) call.error("the separator is empty");
    const std::vector<Value> parts = from_the_right ? text_rsplit(call.cx, t, &what, 1)
                                                    : text_split(call.cx, t, &what, 1);
    const Value none = Value::of(JinjaText{"", {}, t.markup});
    if (parts.size() == 1 && from_the_right) return Value::of({none, none, call.self}, Flavour::tuple);
    if (parts.size() == 1) return Value::of({call.self, none, none}, Flavour::tuple);
    const int64_t at = int64_t(parts[0].str().size());
    JinjaText separator = t.part(at, at + int64_t(what.size()));
    separator.markup = t.markup || call.at(0).s->markup;    // Python hands back the separator that it was given
    return Value::of({parts[0], Value::of(std::move(separator)), parts[1]}, Flavour::tuple);
}
Value replace(JinjaCall& call) {
    if (!call.has(1) || !call.at(1).is_string()) call.error("the new text must be a text");
    return call.cx.text(text_replace(call.cx, own(call), call.string(0), *call.at(1).s, call.whole(2, -1)));
}
Value join(JinjaCall& call) {
    return call.cx.text(text_join(call.cx, jinja_items(call.cx, call.at(0)), own(call), true));
}

enum class Side : uint8_t { left, right, both };
template <Side text_side>
Value justify(JinjaCall& call) {                       // width, fillchar=" "
    const JinjaText& t = own(call);
    const std::string fill = call.has(1) ? call.string(1) : " ";
    if (text_length(fill) != 1) call.error("the fill must be one character");
    const int64_t width = call.whole(0, 0), margin = width - text_length(t.text);
    if (margin <= 0) return call.self;
    const int64_t left = text_side == Side::left    ? 0
                         : text_side == Side::right ? margin
                                                    : margin / 2 + (margin & width & 1);
    return call.cx.text(text_padded(call.cx, t, left, margin - left, fill));
}
Value zfill(JinjaCall& call) {
    const JinjaText& t = own(call);
    const int64_t margin = call.whole(0, 0) - text_length(t.text);
    if (margin <= 0) return call.self;
    const int64_t sign = t.text.starts_with('-') || t.text.starts_with('+');
    JinjaText out = t.part(0, sign);
    out.append(text_padded(call.cx, t.part(sign, int64_t(t.text.size())), margin, 0, "0"));
    return call.cx.text(std::move(out));
}

template <char kind>                                   // of isalpha, isalnum, ...: the name is in the row
Value consists(JinjaCall& call) {
    static constexpr std::string_view names[] = {"isalpha",     "isalnum", "isspace", "isascii",
                                                 "isprintable", "islower", "isupper", "istitle"};
    call.cx.spend_on(own(call));
    return Value::of(text_is(own(call).text, names[int(kind)]));
}
Value isdigit(JinjaCall& call) {                       // isdigit, isdecimal and isnumeric agree on ASCII
    call.cx.spend_on(own(call));
    if (!text_is(own(call).text, "isascii")) call.error("of characters beyond ASCII is not supported");
    return Value::of(text_is(own(call).text, "isdigit"));
}
Value format(JinjaCall& call) { return call.cx.text(jinja_brace_format(call.cx, own(call), call.rest, call.keywords)); }

template <Value (*run)(JinjaCall&)>
Value plain(JinjaCall& call) {    // methods that escape what they are given, where self is a safe text
    if (own(call).markup) call.error("of a safe text is not supported");
    return run(call);
}

}  // namespace jinja_string_methods_room

const JinjaTable& jinja_string_methods(const JinjaValue&) {
    using namespace jinja_string_methods_room;
    static const JinjaTable table = {
        {"strip", "chars=, /", strip<true, true>},
        {"lstrip", "chars=, /", strip<true, false>},
        {"rstrip", "chars=, /", strip<false, true>},
        {"upper", "", cased<JinjaCase::upper>},
        {"lower", "", cased<JinjaCase::lower>},
        {"title", "", cased<JinjaCase::title>},
        {"capitalize", "", cased<JinjaCase::capitalize>},
        {"swapcase", "", cased<JinjaCase::swap>},
        {"split", "sep=, maxsplit=", split},
        {"rsplit", "sep=, maxsplit=", rsplit},
        {"splitlines", "keepends=", splitlines},
        {"find", "sub, start=, end=, /", find<false, false>},
        {"rfind", "sub, start=, end=, /", find<true, false>},
        {"index", "sub, start=, end=, /", find<false, true>},
        {"rindex", "sub, start=, end=, /", find<true, true>},
        {"count", "sub, start=, end=, /", count},
        {"startswith", "prefix, start=, end=, /", touches<false>},
        {"endswith", "suffix, start=, end=, /", touches<true>},
        {"removeprefix", "prefix, /", removeprefix},
        {"removesuffix", "suffix, /", removesuffix},
        {"partition", "sep, /", partition<false>},
        {"rpartition", "sep, /", partition<true>},
        {"replace", "old, new, count=, /", plain<replace>},
        {"join", "iterable, /", plain<join>},
        {"format", "*, **", plain<format>},
        {"ljust", "width, fillchar=, /", plain<justify<Side::left>>},
        {"rjust", "width, fillchar=, /", plain<justify<Side::right>>},
        {"center", "width, fillchar=, /", plain<justify<Side::both>>},
        {"zfill", "width, /", zfill},
        {"isalpha", "", consists<0>},
        {"isalnum", "", consists<1>},
        {"isspace", "", consists<2>},
        {"isascii", "", consists<3>},
        {"isprintable", "", consists<4>},
        {"islower", "", consists<5>},
        {"isupper", "", consists<6>},
        {"istitle", "", consists<7>},
        {"isdigit", "", isdigit},
        {"isdecimal", "", isdigit},
        {"isnumeric", "", isdigit},
        {"casefold", "*", nullptr},
        {"encode", "*, **", nullptr},
        {"expandtabs", "*, **", nullptr},
        {"format_map", "*", nullptr},
        {"isidentifier", "*", nullptr},
        {"maketrans", "*", nullptr},
        {"translate", "*", nullptr},
        {"unescape", "*", nullptr},
        {"striptags", "*", nullptr},
    };
    return table;
}

}}  // namespace qlora
