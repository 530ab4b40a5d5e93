// exp_constants.h - the constants of exp, shared by its copies for each instruction set.
//
// exp(x) = 2^n e^r with n = round(x log2 e), r = x - n ln 2 in two pieces so that the first product is exact, |r| <=
// 0.347, and e^r = 1 + r + r^2 P(r). P is the polynomial of degree 4 with the least relative error there (0.05 ulp, by
// iterated least squares).
#pragma once
#include "qlora.h"

namespace qlora { inline namespace QLORA_ABI {

namespace exp_constants {
constexpr float log2e = 0x1.715476p+0f;
constexpr float ln2_high = 0x1.62ep-1f, ln2_low = 0x1.0bfbe8p-15f;   // the first has 12 bits: exact times any n here
constexpr float p0 = 0x1.fffffcp-2f, p1 = 0x1.555492p-3f, p2 = 0x1.5558f2p-5f, p3 = 0x1.1239f4p-7f,
                p4 = 0x1.6a2416p-10f;
constexpr float least = -104.0f, most = 89.0f;         // below the first exp is 0, above the second it is infinite
}  // namespace exp_constants

}}  // namespace qlora
