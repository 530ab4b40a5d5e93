// lanes_avx512.h - sixteen lanes of AVX-512 under the names that the shared bodies (src/cpu/*.inl) use.
#pragma once
#include "src/cpu/kernels.h"
#include "src/cpu/vectors.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace lanes_avx512 {

using Vector = __m512;
using Lanes = __mmask16;
constexpr int64_t width = 16;

// n >= 0
static QLORA_INLINE Lanes first_lanes(int64_t n) { return n >= 16 ? Lanes(0xffff) : Lanes((1u << n) - 1); }
static QLORA_INLINE Vector set(float x) { return _mm512_set1_ps(x); }
static QLORA_INLINE Vector broadcast(const float* p) { return _mm512_set1_ps(*p); }
static QLORA_INLINE Vector zero() { return _mm512_setzero_ps(); }
static QLORA_INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
static QLORA_INLINE void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
// 0 in the other lanes
static QLORA_INLINE Vector load(const float* p, Lanes lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
static QLORA_INLINE void store(float* p, Lanes lanes, Vector v) { _mm512_mask_storeu_ps(p, lanes, v); }
static QLORA_INLINE Vector load_or(Vector other, const float* p, Lanes lanes) {
    return _mm512_mask_loadu_ps(other, lanes, p);
}

static QLORA_INLINE Vector plus(Vector a, Vector b) { return _mm512_add_ps(a, b); }
static QLORA_INLINE Vector minus(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
static QLORA_INLINE Vector times(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
static QLORA_INLINE Vector over(Vector a, Vector b) { return _mm512_div_ps(a, b); }
static QLORA_INLINE Vector times_plus(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }     // a b + c
static QLORA_INLINE Vector minus_times(Vector a, Vector b, Vector c) { return _mm512_fnmadd_ps(a, b, c); }   // c - a b
static QLORA_INLINE Vector plus_where(Lanes lanes, Vector a, Vector b) { return _mm512_mask_add_ps(a, lanes, a, b); }
// The second operand, where one is NaN.
static QLORA_INLINE Vector larger(Vector a, Vector b) { return _mm512_max_ps(a, b); }
static QLORA_INLINE Vector smaller(Vector a, Vector b) { return _mm512_min_ps(a, b); }

static QLORA_INLINE Vector nearest(Vector x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static QLORA_INLINE Vector times_power_of_2(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
static QLORA_INLINE Vector power_of_2(Vector n) { return _mm512_scalef_ps(set(1), n); }

static QLORA_INLINE Vector negative_size(Vector x) { return _mm512_or_ps(x, set(-0.0f)); }     // -|x|
static QLORA_INLINE Vector with_sign_of(Vector size, Vector of) {
    const Vector sign = set(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, size), _mm512_and_ps(sign, of));
}

static QLORA_INLINE float total(Vector v) { return _mm512_reduce_add_ps(v); }
// Of sixteen at a time, in the same order: halves, halves of those, and so on.
static QLORA_INLINE Vector quarters(Vector a, Vector b, Vector c, Vector d) {          // of four: {a, b, c, d}
    const Vector ab = plus(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)),
                 cd = plus(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    return plus(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}
static QLORA_INLINE Vector totals(const Vector (&v)[16]) {
    Vector q[4];                                       // quarter i of q[j] is of vector 4 i + j
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) q[j] = quarters(v[j], v[4 + j], v[8 + j], v[12 + j]);
    const Vector a = plus(_mm512_unpacklo_ps(q[0], q[1]), _mm512_unpackhi_ps(q[0], q[1])),
                 b = plus(_mm512_unpacklo_ps(q[2], q[3]), _mm512_unpackhi_ps(q[2], q[3]));
    return plus(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
static QLORA_INLINE float largest(Vector v) { return _mm512_reduce_max_ps(v); }

}  // namespace lanes_avx512
}}  // namespace qlora

QLORA_TARGET_END
#endif
