// exp_constants.h - the constants of exp, and of tanh and gelu that are made of it, shared by the copies for each
// instruction set.
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

// tanh(d / 2) = -t / (2 + t) with t = e^-|d| - 1, and the sign of d. Near 0, where e^-|d| is 1 + r + r^2 P(r) with n =
// 0, t is r + r^2 P(r): the 1 is never added, so that t has the relative precision of d. Elsewhere |t| > 0.29, and
// nothing cancels in t = 2^n (r + r^2 P(r)) + (2^n - 1).
namespace tanh_constants {
constexpr float least = -20.0f;                        // of -|d|: tanh(10) is 1 to the last bit
}  // namespace tanh_constants

// gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x s with s = 1 / (1 + e), e = exp(-x (linear + cubic
// x^2)), and gelu' = s + x s (1 - s) (linear + 3 cubic x^2). 1 - s = e s keeps its digits where s is near 1 and the
// factors around it are large. Two guards against products of 0 and infinity, both where s is 0 or 1 already: x^2 is
// held at `most` (there x (linear + cubic x^2) = 112), and in e s the e at `finite` (s = 0).
namespace gelu_constants {
constexpr float linear = 1.59576912f, cubic = 0.0713548163f;   // 2 sqrt(2 / pi), and 0.044715 times that
constexpr float most = 121.0f, finite = 0x1.fffffep127f;
}  // namespace gelu_constants

// The exact gelu(x) = x Phi(x), Phi the normal distribution, and gelu' = Phi(x) + x phi(x), phi its density. For a >= 0
// Phi(-a) = e^(-a^2 / 2) t Q(t) with t = 1 / (1 + reach a). Q is the polynomial of degree 7 with the least relative
// error for a up to 14 (1e-7, by iterated least squares), and `reach` the best for it. As x Phi(x) = max(x, 0) - a
// Phi(-a) with a = |x|, nothing cancels in the left tail. a is held at `far`, where Phi(-a) is 0, so that no infinity
// meets it.
namespace normal_constants {
constexpr float reach = 0.305f, density = 0.398942280f, far = 40.0f;             // density: phi(0)
constexpr float q0 = 0x1.f23c82p-4f, q1 = 0x1.f59fbep-4f, q2 = 0x1.a79ccap-4f, q3 = 0x1.efb3e8p-4f,
                q4 = -0x1.371924p-5f, q5 = 0x1.7c5892p-3f, q6 = -0x1.395196p-3f, q7 = 0x1.2ca36ep-5f;
}  // namespace normal_constants

}}  // namespace qlora
