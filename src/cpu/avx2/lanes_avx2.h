// lanes_avx2.h - eight lanes of AVX2 under the names that the shared bodies (src/cpu/*.inl) use.
#pragma once
#include "src/cpu/kernels.h"
#include "src/cpu/vectors.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace lanes_avx2 {

using Vector = __m256;
using Lanes = __m256i;                                 // a mask
constexpr int64_t width = 8;

static QLORA_INLINE Lanes first_lanes(int64_t n) {     // any n
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? int(n) : 8), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static QLORA_INLINE Vector set(float x) { return _mm256_set1_ps(x); }
static QLORA_INLINE Vector broadcast(const float* p) { return _mm256_broadcast_ss(p); }
static QLORA_INLINE Vector zero() { return _mm256_setzero_ps(); }
static QLORA_INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
static QLORA_INLINE void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
// 0 in the other lanes
static QLORA_INLINE Vector load(const float* p, Lanes lanes) { return _mm256_maskload_ps(p, lanes); }
static QLORA_INLINE void store(float* p, Lanes lanes, Vector v) { _mm256_maskstore_ps(p, lanes, v); }
static QLORA_INLINE Vector load_or(Vector other, const float* p, Lanes lanes) {
    return _mm256_blendv_ps(other, load(p, lanes), _mm256_castsi256_ps(lanes));
}

static QLORA_INLINE Vector plus(Vector a, Vector b) { return _mm256_add_ps(a, b); }
static QLORA_INLINE Vector minus(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
static QLORA_INLINE Vector times(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
static QLORA_INLINE Vector over(Vector a, Vector b) { return _mm256_div_ps(a, b); }
static QLORA_INLINE Vector times_plus(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }     // a b + c
static QLORA_INLINE Vector minus_times(Vector a, Vector b, Vector c) { return _mm256_fnmadd_ps(a, b, c); }   // c - a b
static QLORA_INLINE Vector plus_where(Lanes lanes, Vector a, Vector b) {
    return _mm256_add_ps(a, _mm256_and_ps(b, _mm256_castsi256_ps(lanes)));
}
// The second operand, where one is NaN.
static QLORA_INLINE Vector larger(Vector a, Vector b) { return _mm256_max_ps(a, b); }
static QLORA_INLINE Vector smaller(Vector a, Vector b) { return _mm256_min_ps(a, b); }

static QLORA_INLINE Vector nearest(Vector x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// x 2^n for a whole n: as a product of two powers, so that results below the normal range round once.
static QLORA_INLINE Vector power_of_2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static QLORA_INLINE Vector times_power_of_2(Vector x, Vector n) {
    const __m256i whole = _mm256_cvtps_epi32(n), first = _mm256_srai_epi32(whole, 1),
                  second = _mm256_sub_epi32(whole, first);
    return _mm256_mul_ps(_mm256_mul_ps(x, power_of_2(first)), power_of_2(second));
}

static QLORA_INLINE Vector power_of_2(Vector n) { return power_of_2(_mm256_cvtps_epi32(n)); }   // of a normal power

static QLORA_INLINE Vector negative_size(Vector x) { return _mm256_or_ps(x, set(-0.0f)); }     // -|x|
static QLORA_INLINE Vector with_sign_of(Vector size, Vector of) {
    const Vector sign = set(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, size), _mm256_and_ps(sign, of));
}

static QLORA_INLINE float total(Vector v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static QLORA_INLINE float largest(Vector v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

}  // namespace lanes_avx2
}}  // namespace qlora

QLORA_TARGET_END
#endif
