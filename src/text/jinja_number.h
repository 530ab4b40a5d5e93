// jinja_number.h - Python's numbers: int() and float() of texts, round(), and how they print.
#pragma once
#include "src/text/jinja_value.h"

namespace qlora { inline namespace QLORA_ABI {

std::string jinja_float_text(double);                  // repr()
// Refuses a number of the data that may have been an integer beyond 64 bits, or -0: those print and count differently.
void jinja_need_exact(JinjaContext&, const JinjaValue&);
// int(text, base) and float(text); nothing where Python raises ValueError. An integer beyond 64 bits is refused by an
// error.
std::optional<int64_t> jinja_parse_int(JinjaContext&, std::string_view text, int64_t base = 10);
std::optional<double> jinja_parse_float(JinjaContext&, std::string_view text);
// int(float): towards zero; nan, infinities and what 64 bits do not hold are errors
int64_t jinja_whole(JinjaContext&, double);
double jinja_round(JinjaContext&, double, int64_t digits);
JinjaValue jinja_round(JinjaContext&, const JinjaValue&, int64_t digits, bool to_integer);

}}  // namespace qlora
