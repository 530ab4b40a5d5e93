// error.h - one way to fail: fail(code, parts...) throws qlora::Error with the parts joined.
// Write messages as: operation, what was found, what was expected, what to do.
#pragma once
#include "qlora.h"

#include <sstream>

namespace qlora { inline namespace QLORA_ABI {

// Joins anything that can be streamed; shapes print as [2, 3].
inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '[';
    for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
    return out << ']';
}

template <class... Part>
std::string str(const Part&... parts) {
    std::ostringstream out;
    // else a stream swallows bad_alloc and the text ends in the middle
    out.exceptions(std::ios::badbit | std::ios::failbit);
    out.imbue(std::locale::classic());
    (out << ... << parts);
    return out.str();
}

// Messages quote files: they stay one line, nothing that a terminal obeys gets through, and nothing endless.
inline std::string printable(std::string text) {
    constexpr size_t front = 1500, back = 500;
    if (text.size() > front + back) text = text.substr(0, front) + " [...] " + text.substr(text.size() - back);
    const auto at = [&](size_t i) { return uint8_t(i < text.size() ? text[i] : 0); };
    for (size_t i = 0; i < text.size(); ++i) {
        const uint8_t c = at(i);
        if (c == '\n' || c == '\t' || c == '\r') text[i] = ' ';
        else if (c == 0x7F || c < 0x20) text[i] = '?';
        // The other half of the control characters, and U+2028 and U+2029, which end lines.
        if (c == 0xC2 && at(i + 1) >= 0x80 && at(i + 1) < 0xA0) text.replace(i, 2, "??");
        if (c == 0xE2 && at(i + 1) == 0x80 && (at(i + 2) == 0xA8 || at(i + 2) == 0xA9)) text.replace(i, 3, "   ");
    }
    return text;
}

template <class... Part>
[[noreturn]] void fail(Errc code, const Part&... parts) {
    throw Error(code, printable(str(parts...)));
}

// a * b for sizes that come from a file: overflow is an error of that file, never a small number.
inline int64_t checked_mul(int64_t a, int64_t b, std::string_view what) {
    int64_t product = 0;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product))
        fail(Errc::format, what, ": size ", a, " * ", b, " is out of range");
    return product;
}

}}  // namespace qlora
