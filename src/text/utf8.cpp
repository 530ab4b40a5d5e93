// utf8.cpp - UTF-8 by the table of well-formed sequences (Unicode, section 3.9, table 3-7).
#include "src/text/utf8.h"

namespace qlora { inline namespace QLORA_ABI {
namespace utf8_room {

// How a lead byte continues: number of bytes, and the bounds of the second byte, which keep out overlong forms,
// surrogates (ED A0..BF) and codes above U+10FFFF (F4 90..). Zero bytes: not a lead byte.
struct Lead { int bytes; uint8_t low, high; };

inline Lead lead_of(uint8_t b) {
    if (b < 0x80) return {1, 0, 0};
    if (b < 0xC2) return {0, 0, 0};
    if (b < 0xE0) return {2, 0x80, 0xBF};
    if (b < 0xF0) return {3, uint8_t(b == 0xE0 ? 0xA0 : 0x80), uint8_t(b == 0xED ? 0x9F : 0xBF)};
    if (b < 0xF5) return {4, uint8_t(b == 0xF0 ? 0x90 : 0x80), uint8_t(b == 0xF4 ? 0x8F : 0xBF)};
    return {0, 0, 0};
}

// How many bytes from `at` on belong to one well-formed sequence, which may be cut short by the end of the text.
inline int well_formed(std::string_view text, size_t at, Lead lead) {
    int n = 1;
    for (; n < lead.bytes && at + size_t(n) < text.size(); ++n) {
        const uint8_t b = uint8_t(text[at + size_t(n)]);
        if (b < (n == 1 ? lead.low : 0x80) || b > (n == 1 ? lead.high : 0xBF)) break;
    }
    return n;
}

}  // namespace utf8_room

Utf8Char utf8_at(std::string_view text, size_t at) {
    if (at >= text.size()) return {};
    const uint8_t first = uint8_t(text[at]);
    if (first < 0x80) return {first, 1, true};
    const utf8_room::Lead lead = utf8_room::lead_of(first);
    if (lead.bytes == 0 || utf8_room::well_formed(text, at, lead) != lead.bytes) return {0xFFFD, 1, false};
    char32_t code = first & (0xFF >> (lead.bytes + 1));
    for (int i = 1; i < lead.bytes; ++i) code = code << 6 | (uint8_t(text[at + size_t(i)]) & 0x3F);
    return {code, lead.bytes, true};
}

void utf8_append(std::string& out, char32_t code) {
    if (code < 0x80) {
        out += char(code);
    } else if (code < 0x800) {
        out += char(0xC0 | code >> 6);
        out += char(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        out += char(0xE0 | code >> 12);
        out += char(0x80 | (code >> 6 & 0x3F));
        out += char(0x80 | (code & 0x3F));
    } else {
        out += char(0xF0 | code >> 18);
        out += char(0x80 | (code >> 12 & 0x3F));
        out += char(0x80 | (code >> 6 & 0x3F));
        out += char(0x80 | (code & 0x3F));
    }
}

bool utf8_valid(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
        const Utf8Char c = utf8_at(text, at);
        if (!c.valid) return false;
        at += size_t(c.bytes);
    }
    return true;
}

std::string utf8_sanitize(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        const Utf8Char c = utf8_at(text, at);
        if (c.valid) out.append(text.substr(at, size_t(c.bytes)));
        else out += "\xEF\xBF\xBD";
        at += size_t(c.bytes);
    }
    return out;
}

size_t utf8_whole(std::string_view text) {
    const size_t from = text.size() > 3 ? text.size() - 3 : 0;         // an unfinished character has 3 bytes at most
    for (size_t at = text.size(); at-- > from;) {
        const utf8_room::Lead lead = utf8_room::lead_of(uint8_t(text[at]));
        if (lead.bytes == 0) continue;                                 // a continuation byte, or no UTF-8 at all
        const bool unfinished = at + size_t(lead.bytes) > text.size()
            && at + size_t(utf8_room::well_formed(text, at, lead)) == text.size();
        return unfinished ? at : text.size();
    }
    return text.size();
}

}}  // namespace qlora
