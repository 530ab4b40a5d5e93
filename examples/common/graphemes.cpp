// graphemes.cpp - clusters of code points, after Unicode's UAX #29 as far as people type it, and their columns.
#include "examples/common/graphemes.h"

#include <clocale>
#include <cstdint>
#include <cwchar>

namespace program {

namespace graphemes {

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }        // inside a UTF-8 character

size_t after(const std::string& s, size_t at) {
    if (at < s.size()) do ++at; while (at < s.size() && continues(s[at]));
    return at;
}

size_t before(const std::string& s, size_t at) {
    if (at > 0) do --at; while (at > 0 && continues(s[at]));
    return at;
}

uint32_t code_point(const std::string& s, size_t at) {
    const auto lead = static_cast<unsigned char>(s[at]);
    if (lead < 0x80) return lead;
    uint32_t code = lead >= 0xF0 ? lead & 7 : lead >= 0xE0 ? lead & 15 : lead & 31;
    for (size_t i = at + 1; i < s.size() && continues(s[i]); ++i)
        code = code << 6 | (static_cast<unsigned char>(s[i]) & 63);
    return code;
}

constexpr uint32_t joiner = 0x200D, emoji_selector = 0xFE0F;

bool flag_letter(uint32_t c) { return c >= 0x1F1E6 && c <= 0x1F1FF; }
bool skin_tone(uint32_t c) { return c >= 0x1F3FB && c <= 0x1F3FF; }

#if defined(_WIN32)
// The console knows no more either: signs without a column of their own, and those of two.
int columns_known(uint32_t c) {
    if ((c >= 0x300 && c <= 0x36F) || (c >= 0x200B && c <= 0x200F) || (c >= 0xFE00 && c <= 0xFE0F)) return 0;
    const bool wide = (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
                      (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
                      (c >= 0x1F300 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFD);
    return wide ? 2 : 1;
}
#else
int columns_known(uint32_t c) { return ::wcwidth(wchar_t(c)); }
#endif

// wcwidth of what the library does not know is -1: a terminal shows one column.
int columns_of(uint32_t c) {
    if (c < 0x20 || c == 0x7F) return 1;               // shown as a sign of its own
    const int known = columns_known(c);
    return known < 0 ? 1 : known;
}

// Belongs to what stands before it: it has no column of its own, or it colours an emoji.
bool extends(uint32_t c) {
    return c >= 0x80 && (columns_of(c) == 0 || c == joiner || c == emoji_selector || skin_tone(c) ||
                         (c >= 0x300 && c <= 0x36F) || (c >= 0xE0020 && c <= 0xE007F));
}

bool in_word(const std::string& s, size_t at) {
    const auto c = static_cast<unsigned char>(s[at]);
    return c >= 0x80 || c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

}  // namespace graphemes

void use_locale() {
#if !defined(_WIN32)
    std::setlocale(LC_CTYPE, "");
#endif
    if (graphemes::columns_known(0x4E2D) == 2) return;       // it knows that a Chinese character has two columns
    for (const char* name : {"C.UTF-8", "C.utf8", "en_US.UTF-8", "UTF-8"})
        if (std::setlocale(LC_CTYPE, name)) return;
}

size_t after_cluster(const std::string& s, size_t at) {
    using namespace graphemes;
    if (at >= s.size()) return s.size();
    uint32_t last = code_point(s, at);
    at = after(s, at);
    if (flag_letter(last) && at < s.size() && flag_letter(code_point(s, at))) at = after(s, at);
    while (at < s.size()) {
        const uint32_t next = code_point(s, at);
        if (last < 0x20 || !(extends(next) || (last == joiner && next >= 0x80))) break;
        last = next;
        at = after(s, at);
    }
    return at;
}

// Clusters are found from the left; the last line break is always a border.
size_t before_cluster(const std::string& s, size_t at) {
    if (at == 0) return 0;
    const size_t line = at >= 2 ? s.rfind('\n', at - 2) : std::string::npos;
    size_t from = line == std::string::npos ? 0 : line + 1;
    for (size_t next; (next = after_cluster(s, from)) < at;) from = next;
    return from;
}

size_t after_word(const std::string& s, size_t at) {
    while (at < s.size() && !graphemes::in_word(s, at)) ++at;
    while (at < s.size() && graphemes::in_word(s, at)) ++at;
    return at;
}

size_t before_word(const std::string& s, size_t at) {
    while (at > 0 && !graphemes::in_word(s, at - 1)) --at;
    while (at > 0 && graphemes::in_word(s, at - 1)) --at;
    return at;
}

int width(const std::string& s, size_t from, size_t to) {
    int sum = 0;
    while (from < to) {
        const size_t end = after_cluster(s, from);
        int own = 0;
        for (size_t i = from; i < end; i = graphemes::after(s, i)) {
            const uint32_t c = graphemes::code_point(s, i);
            // terminals differ in whether it widens the sign before it: room for either
            own += c == graphemes::emoji_selector ? 1 : graphemes::columns_of(c);
        }
        sum += own;
        from = end;
    }
    return sum;
}

std::string first_columns(const std::string& s, int most) {
    size_t end = 0;
    for (int sum = 0; end < s.size();) {
        const size_t next = after_cluster(s, end);
        if ((sum += width(s, end, next)) > most) break;
        end = next;
    }
    return s.substr(0, end);
}

}  // namespace program
