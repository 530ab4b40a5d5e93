// jinja_text.cpp - strip, split, replace, join and their kin.
#include "src/text/jinja_text.h"

#include "src/text/unicode.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_text_room {

using Value = JinjaValue;

inline size_t char_before(std::string_view s, size_t end) {            // where the character that ends at `end` begins
    size_t start = end - 1;
    while (start > 0 && end - start < 4 && (s[start] & 0xC0) == 0x80) --start;
    return start + size_t(utf8_at(s, start).bytes) == end ? start : end - 1;
}
inline bool space_at(std::string_view s, size_t at) {
    const Utf8Char c = utf8_at(s, at);
    return c.valid && python_space(c.code);
}
inline size_t skip_spaces(std::string_view s, size_t at) {
    while (at < s.size() && space_at(s, at)) at += size_t(utf8_at(s, at).bytes);
    return at;
}
inline size_t skip_word(std::string_view s, size_t at) {
    while (at < s.size() && !space_at(s, at)) at += size_t(utf8_at(s, at).bytes);
    return at;
}

struct Characters {                                    // the set that strip() takes
    std::vector<char32_t> codes;
    explicit Characters(std::string_view s) {
        for (size_t at = 0; at < s.size(); at += size_t(utf8_at(s, at).bytes)) codes.push_back(utf8_at(s, at).code);
        std::sort(codes.begin(), codes.end());
    }
    bool has(char32_t c) const { return std::binary_search(codes.begin(), codes.end(), c); }
};

// Bytes of the line break at `at`: "\n", "\r", "\r\n" and the separators that Python's splitlines knows; 0: none.
inline size_t line_break(std::string_view s, size_t at) {
    if (s[at] == '\r') return s.substr(at, 2) == "\r\n" ? 2 : 1;
    const Utf8Char c = utf8_at(s, at);
    const bool ends = (c.code >= 0x0A && c.code <= 0x0C) || (c.code >= 0x1C && c.code <= 0x1E) || c.code == 0x85 ||
                      c.code == 0x2028 || c.code == 0x2029;
    return c.valid && ends ? size_t(c.bytes) : 0;
}

}  // namespace jinja_text_room

std::vector<size_t> JinjaRewriter::borders() const {
    std::vector<size_t> out{from_.text.size()};
    for (const auto of : JinjaText::marks)
        for (const JinjaSpan& s : from_.*of) for (const int64_t at : {s.begin, s.end}) out.push_back(size_t(at));
    std::sort(out.begin(), out.end());
    return out;
}

JinjaFinder::JinjaFinder(std::string_view needle) : needle_(needle) {
    constexpr size_t short_needle = 16;                // up to here the library's search is as good as linear
    if (needle.size() <= short_needle) return;
    fallback_.assign(needle.size(), 0);
    for (uint32_t k = 1, matched = 0; k < needle.size(); ++k) {
        while (matched && needle[k] != needle[matched]) matched = fallback_[matched - 1];
        if (needle[k] == needle[matched]) ++matched;
        fallback_[k] = matched;
    }
}
size_t JinjaFinder::find(std::string_view text, size_t from) const {
    if (fallback_.empty()) return text.find(needle_, from);
    size_t matched = 0;
    for (size_t k = from; k < text.size(); ++k) {
        while (matched && text[k] != needle_[matched]) matched = fallback_[matched - 1];
        if (text[k] == needle_[matched]) ++matched;
        if (matched == needle_.size()) return k + 1 - matched;
    }
    return text.npos;
}

JinjaText text_strip(const JinjaText& t, bool left, bool right, const std::string* chars) {
    using namespace jinja_text_room;
    const std::string_view s = t.text;
    const Characters set(chars ? std::string_view(*chars) : std::string_view());
    const auto drop = [&](size_t at) { return chars ? set.has(utf8_at(s, at).code) : space_at(s, at); };
    size_t b = 0, e = s.size();
    while (left && b < e && drop(b)) b += size_t(utf8_at(s, b).bytes);
    while (right && e > b && drop(char_before(s, e))) e = char_before(s, e);
    return t.part(int64_t(b), int64_t(e));
}

JinjaText text_replace(JinjaContext& cx, const JinjaText& t, const std::string& from, const JinjaText& to,
                       int64_t count) {
    using namespace jinja_text_room;
    cx.spend_on(t);
    JinjaRewriter out(t);
    size_t at = 0;
    const auto insert = [&] {
        out.insert(to);
        cx.spend(1 + int64_t(to.text.size()) / 64 + int64_t(to.content.size()));
        cx.check_size(int64_t(out.made().text.size()));
    };
    if (from.empty()) {                                // between all characters, and at both ends
        while (count-- != 0) {
            insert();
            if (at == t.text.size()) return out.take();
            const size_t next = at + size_t(utf8_at(t.text, at).bytes);
            out.keep(at, next);
            at = next;
        }
    } else {
        const JinjaFinder finder(from);
        while (count-- != 0) {
            const size_t hit = finder.find(t.text, at);
            if (hit == t.text.npos) break;
            out.keep(at, hit);
            insert();
            at = hit + from.size();
        }
    }
    out.keep(at, t.text.size());
    return out.take();
}

std::vector<JinjaValue> text_split(JinjaContext& cx, const JinjaText& t, const std::string* separator, int64_t limit) {
    using namespace jinja_text_room;
    std::vector<Value> out;
    const std::string_view s = t.text;
    cx.spend_on(t);
    if (separator && separator->empty()) cx.error("split: empty separator");
    const JinjaFinder finder(separator ? std::string_view(*separator) : std::string_view(" "));
    const auto push = [&](size_t b, size_t e) {
        cx.spend(1 + int64_t(t.content.size()) / 8);
        out.push_back(Value::of(t.part(int64_t(b), int64_t(e))));
    };
    size_t at = 0;
    for (; limit != 0; --limit) {
        if (!separator && (at = skip_spaces(s, at)) == s.size()) return out;
        const size_t hit = separator ? finder.find(s, at) : skip_word(s, at);
        if (hit >= s.size()) break;
        push(at, hit);
        at = hit + (separator ? separator->size() : 0);
    }
    if (!separator) at = skip_spaces(s, at);
    if (separator || at < s.size()) push(at, s.size());
    return out;
}

std::vector<JinjaValue> text_rsplit(JinjaContext& cx, const JinjaText& t, const std::string* separator, int64_t limit) {
    using namespace jinja_text_room;
    std::vector<Value> out;
    const std::string_view s = t.text;
    cx.spend_on(t);
    if (separator && separator->empty()) cx.error("rsplit: empty separator");
    const auto push = [&](size_t b, size_t e) {
        cx.spend(1 + int64_t(t.content.size()) / 8);
        out.push_back(Value::of(t.part(int64_t(b), int64_t(e))));
    };
    std::vector<size_t> hits;    // of the separator, seen from the right: overlaps go to the right one
    if (separator) {
        const std::string needle(separator->rbegin(), separator->rend()), back(s.rbegin(), s.rend());
        const JinjaFinder finder(needle);
        for (size_t at = 0; limit != 0 && (at = finder.find(back, at)) != s.npos; at += needle.size(), --limit)
            hits.push_back(s.size() - at - needle.size());
    }
    size_t end = s.size();
    if (separator) {
        for (const size_t hit : hits) { push(hit + separator->size(), end); end = hit; }
        push(0, end);
    } else {
        const auto before_spaces = [&](size_t e) {
            while (e > 0 && space_at(s, char_before(s, e))) e = char_before(s, e);
            return e;
        };
        for (; limit != 0 && (end = before_spaces(end)) > 0; --limit) {
            size_t b = end;
            while (b > 0 && !space_at(s, char_before(s, b))) b = char_before(s, b);
            push(b, end);
            end = b;
        }
        if ((end = before_spaces(end)) > 0) push(0, end);
    }
    std::reverse(out.begin(), out.end());
    return out;
}

std::vector<JinjaText> text_lines(JinjaContext& cx, const JinjaText& t, bool keep_ends) {
    using namespace jinja_text_room;
    std::vector<JinjaText> out;
    cx.spend_on(t);
    for (size_t begin = 0, at = 0; begin < t.text.size(); begin = at) {
        size_t width = 0;
        while (at < t.text.size() && !(width = line_break(t.text, at))) at += size_t(utf8_at(t.text, at).bytes);
        cx.spend(1 + int64_t(t.content.size()) / 8);
        out.push_back(t.part(int64_t(begin), int64_t(at + (keep_ends ? width : 0))));
        at += width;
    }
    return out;
}

JinjaText text_join(JinjaContext& cx, const std::vector<JinjaValue>& items, const JinjaText& glue, bool only_texts) {
    JinjaText out;
    for (size_t k = 0; k < items.size(); ++k) {
        if (only_texts && !items[k].is_string())
            cx.error(str("join: item ", k, " is of type ", items[k].type_name(), ", not a text"));
        if (k) out.append(glue);
        out.append(jinja_text(cx, items[k]));
        cx.spend(1 + int64_t(glue.text.size()) / 64);
        cx.check_size(int64_t(out.text.size()));
    }
    return out;
}

JinjaText text_padded(JinjaContext& cx, const JinjaText& t, int64_t left, int64_t right, std::string_view fill) {
    left = std::max<int64_t>(left, 0);
    right = std::max<int64_t>(right, 0);
    for (const int64_t n : {left, right})
        if (n > cx.output_limit() / int64_t(fill.size())) cx.check_size(cx.output_limit() + 1);
    JinjaText out;
    out.markup = t.markup;
    for (int64_t k = 0; k < left; ++k) out.text += fill;
    out.append(t);
    for (int64_t k = 0; k < right; ++k) out.text += fill;
    cx.check_size(int64_t(out.text.size()));
    return out;
}

JinjaText text_escaped(const JinjaText& t) {
    if (t.markup) return t;
    JinjaRewriter out(t);
    size_t from = 0;
    for (size_t k = 0; k < t.text.size(); ++k) {
        static constexpr std::string_view special = "&<>'\"";
        static constexpr const char* names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
        const size_t found = special.find(t.text[k]);
        if (found == special.npos) continue;
        out.keep(from, k);
        out.put(k, k + 1, names[found]);
        from = k + 1;
    }
    out.keep(from, t.text.size());
    JinjaText escaped = out.take();
    escaped.markup = true;
    return escaped;
}

int64_t text_length(std::string_view s) {
    int64_t n = 0;
    for (size_t at = 0; at < s.size(); at += size_t(utf8_at(s, at).bytes)) ++n;
    return n;
}
size_t text_offset(std::string_view s, int64_t characters) {
    size_t at = 0;
    for (; characters > 0 && at < s.size(); --characters) at += size_t(utf8_at(s, at).bytes);
    return at;
}
int64_t text_count(std::string_view text, std::string_view of) {
    if (of.empty()) return text_length(text) + 1;
    const JinjaFinder finder(of);
    int64_t n = 0;
    for (size_t at = 0; (at = finder.find(text, at)) != text.npos; at += of.size()) ++n;
    return n;
}

}}  // namespace qlora
