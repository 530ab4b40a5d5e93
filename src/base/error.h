// error.h - one way to fail: fail(code, parts...) throws qlora::Error with the parts joined.
// Write messages as: operation, what was found, what was expected, what to do.
#pragma once
#include "qlora.h"

#include <sstream>

namespace qlora::inline v0_1 {

// Joins anything that can be streamed; shapes print as [2, 3].
inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '[';
    for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
    return out << ']';
}

template <class... Part>
std::string str(const Part&... parts) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    (out << ... << parts);
    return out.str();
}

template <class... Part>
[[noreturn]] void fail(Errc code, const Part&... parts) {
    throw Error(code, str(parts...));
}

// a * b for sizes that come from a file: overflow is an error of that file, never a small number.
inline int64_t checked_mul(int64_t a, int64_t b, std::string_view what) {
    int64_t product = 0;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) fail(Errc::format, what, ": size ", a, " * ", b, " is out of range");
    return product;
}

}  // namespace qlora
