// number.h - text to double, the same in every locale and with every standard library.
#pragma once
#include "qlora.h"

#include <charconv>

namespace qlora { inline namespace QLORA_ABI {

// The nearest double of the longest number that [first, last) begins with, as std::from_chars reads it: no blanks, no
// plus. Out of range: the errc says so, and value is the 0 or infinity of that sign that is nearest.
std::from_chars_result parse_double(const char* first, const char* last, double& value);

}}  // namespace qlora
