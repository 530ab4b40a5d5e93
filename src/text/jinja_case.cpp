// jinja_case.cpp - upper, lower, title and the tests of what a text consists of, as Python's str has them for all
// scripts.
#include "src/text/jinja_text.h"
#include "src/text/unicode.h"

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_case_room {

constexpr char32_t sigma = 0x3A3, final_sigma = 0x3C2;

// A capital sigma that ends a word becomes the final form: a cased letter before it, none after it, ignorable marks
// left out.
inline bool ends_word(std::string_view s, size_t at) {
    size_t before = at;
    bool cased = false;
    while (before > 0) {
        do --before; while (before > 0 && (s[before] & 0xC0) == 0x80);
        const char32_t c = utf8_at(s, before).code;
        if (case_ignorable(c)) continue;
        cased = python_cased(c);
        break;
    }
    if (!cased) return false;
    for (size_t after = at + size_t(utf8_at(s, at).bytes); after < s.size(); after += size_t(utf8_at(s, after).bytes)) {
        const char32_t c = utf8_at(s, after).code;
        if (!case_ignorable(c)) return !python_cased(c);
    }
    return true;
}

// Of a text in lower case, where `word` says where the text begins for the rule above.
inline void append_lower(std::string& out, std::string_view s, size_t at, char32_t code) {
    if (code == sigma && ends_word(s, at)) utf8_append(out, final_sigma);
    else append_cased(out, code, CharCase::lower);
}

// jinja's |title starts a word behind these.
inline bool splits_title(char32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || python_space(c);
}

}  // namespace jinja_case_room

JinjaText text_cased(const JinjaText& t, JinjaCase how) {
    using namespace jinja_case_room;
    const std::string_view s = t.text;
    JinjaRewriter out(t);
    bool start = true;                                 // of the text, or of a word
    size_t word = 0;                                   // |title lowers each word by itself
    const std::vector<size_t> borders = out.borders();
    std::string now;                                   // of s[from, at)
    size_t from = 0, border = 0;
    for (size_t at = 0; at < s.size();) {
        const Utf8Char c = utf8_at(s, at);
        const size_t next = at + size_t(c.bytes);
        if (!c.valid) now += s.substr(at, size_t(c.bytes));
        else if (how == JinjaCase::upper) append_cased(now, c.code, CharCase::upper);
        else if (how == JinjaCase::lower) append_lower(now, s, at, c.code);
        else if (how == JinjaCase::swap) {
            if (python_upper(c.code)) append_lower(now, s, at, c.code);
            else if (python_lower(c.code)) append_cased(now, c.code, CharCase::upper);
            else utf8_append(now, c.code);
        } else if (how == JinjaCase::filter_title) {
            const bool splits = splits_title(c.code);
            if (start || splits) { append_cased(now, c.code, CharCase::upper); word = next; }
            else {
                size_t end = at;
                if (c.code == sigma)
                    while (end < s.size() && !splits_title(utf8_at(s, end).code)) end += size_t(utf8_at(s, end).bytes);
                append_lower(now, s.substr(word, end > at ? end - word : next - word), at - word, c.code);
            }
            start = splits;
        } else {
            if (start) append_cased(now, c.code, CharCase::title);
            else append_lower(now, s, at, c.code);
            start = how == JinjaCase::title && !python_cased(c.code);
        }
        at = next;
        while (border < borders.size() && borders[border] < at) ++border;
        if (borders[border] > at) continue;
        out.put(from, at, std::exchange(now, {}));
        from = at;
    }
    return out.take();
}

bool text_is(std::string_view s, std::string_view method) {
    bool cased = false, upper = true, lower = true, previous_cased = false, title = true;
    const bool by_case = method == "islower" || method == "isupper" || method == "istitle";
    if (s.empty()) return method == "isascii" || method == "isprintable";
    for (size_t at = 0; at < s.size();) {
        const char32_t c = utf8_at(s, at).code;
        const uint16_t kind = char_class(c);
        at += size_t(utf8_at(s, at).bytes);
        if (method == "isalpha" && !(kind & char_letter)) return false;
        if (method == "isalnum" && !(kind & (char_letter | char_number))) return false;
        if (method == "isspace" && !python_space(c)) return false;
        if (method == "isascii" && c >= 0x80) return false;
        if (method == "isprintable" && !python_printable(c)) return false;
        if (method == "isdigit" && !(c >= '0' && c <= '9')) return false;
        if (!by_case) continue;
        const bool is_title = kind & char_title, is_upper = python_upper(c) && !is_title, is_lower = python_lower(c);
        cased |= is_upper || is_lower || is_title;
        upper &= !is_lower && !is_title;
        lower &= !is_upper && !is_title;
        if (is_upper || is_title) title &= !previous_cased;
        else if (is_lower) title &= previous_cased;
        previous_cased = is_upper || is_lower || is_title;
    }
    if (!by_case) return true;
    return cased && (method == "islower" ? lower : method == "isupper" ? upper : title);
}

}}  // namespace qlora
