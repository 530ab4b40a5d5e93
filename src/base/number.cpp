// number.cpp - parse_double, of std::from_chars where the library has it for doubles (libc++ before 20 has not).
#include "src/base/number.h"

#include <cmath>
#include <string>
#include <version>
#ifndef __cpp_lib_to_chars
#include <locale.h>
#include <stdlib.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace number_room {

// Whether a number out of range is too small rather than too large: by its decimal exponent.
bool tiny(const char* p, const char* end) {
    int64_t exponent = 0, point = 0;
    bool after_point = false, leading = true;
    for (; p != end && *p != 'e' && *p != 'E'; ++p) {
        if (*p == '.') after_point = true;
        if (*p >= '1' && *p <= '9') leading = false;
        if (*p >= '0' && *p <= '9') point += after_point ? (leading ? -1 : 0) : (leading ? 0 : 1);
    }
    if (p != end) {
        const bool negative = p[1] == '-';
        const char* from = p + 1 + (p[1] == '-' || p[1] == '+');
        if (std::from_chars(from, end, exponent).ec != std::errc()) return negative;
        if (negative) exponent = -exponent;
    }
    return exponent < -point;                          // not a sum: the exponent may be the largest number there is
}

#ifdef __cpp_lib_to_chars
std::from_chars_result parse(const char* first, const char* last, double& value) {
    return std::from_chars(first, last, value);
}
#else
// The end of the longest decimal number: -d.de-d; first where there is none.
const char* end_of_number(const char* first, const char* last) {
    const auto digits = [last](const char* p) {
        while (p != last && *p >= '0' && *p <= '9') ++p;
        return p;
    };
    const char *start = first != last && *first == '-' ? first + 1 : first, *p = digits(start);
    bool any = p != start;
    if (p != last && *p == '.') {
        const char* behind = digits(p + 1);
        any = any || behind != p + 1;
        if (any) p = behind;
    }
    if (!any) return first;
    if (p != last && (*p == 'e' || *p == 'E')) {
        const char* from = p + 1 + (p + 1 != last && (p[1] == '-' || p[1] == '+'));
        if (digits(from) != from) p = digits(from);
    }
    return p;
}

std::from_chars_result parse(const char* first, const char* last, double& value) {
    static const locale_t plain = newlocale(LC_ALL_MASK, "C", locale_t(0));
    const char* end = end_of_number(first, last);
    if (end == first) return {first, std::errc::invalid_argument};
    const std::string text(first, end);
    const double read = strtod_l(text.c_str(), nullptr, plain);
    const std::string_view digits = std::string_view(text).substr(0, text.find_first_of("eE"));
    if (std::isinf(read) || (read == 0 && digits.find_first_of("123456789") != digits.npos))
        return {end, std::errc::result_out_of_range};
    value = read;
    return {end, std::errc()};
}
#endif

}  // namespace number_room

std::from_chars_result parse_double(const char* first, const char* last, double& value) {
    const std::from_chars_result result = number_room::parse(first, last, value);
    if (result.ec == std::errc::result_out_of_range)
        value = std::copysign(number_room::tiny(first, result.ptr) ? 0.0 : HUGE_VAL, *first == '-' ? -1.0 : 1.0);
    return result;
}

}}  // namespace qlora
