// vec_avx2.cpp - the vector loops with AVX2 and FMA: eight lanes, and masked loads and stores for the last few.
#include "src/cpu/exp_constants.h"
#include "src/cpu/intrinsics.h"
#include "src/cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace vec_avx2_room {

static QLORA_INLINE __m256i first_lanes(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? int(n) : 8), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static QLORA_INLINE __m256 set(float x) { return _mm256_set1_ps(x); }
static QLORA_INLINE __m256 load(const float* p, __m256i lanes) { return _mm256_maskload_ps(p, lanes); }
static QLORA_INLINE __m256 power_of_2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

struct Power {                                         // e^x = 2^n (1 + rest)
    __m256i n;
    __m256 rest;
};

static QLORA_INLINE Power power_of(__m256 x) {
    using namespace exp_constants;
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, set(log2e)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 r = _mm256_fnmadd_ps(n, set(ln2_low), _mm256_fnmadd_ps(n, set(ln2_high), x));
    __m256 p = _mm256_fmadd_ps(set(p4), r, set(p3));
    p = _mm256_fmadd_ps(p, r, set(p2));
    p = _mm256_fmadd_ps(p, r, set(p1));
    p = _mm256_fmadd_ps(p, r, set(p0));
    return {_mm256_cvtps_epi32(n), _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r)};
}

// 2^n as a product of two powers, so that results below the normal range round once.
static QLORA_INLINE __m256 exp8(__m256 x) {
    using namespace exp_constants;
    const Power e = power_of(_mm256_min_ps(set(most), _mm256_max_ps(set(least), x)));   // the second operand, if NaN
    const __m256i first = _mm256_srai_epi32(e.n, 1), second = _mm256_sub_epi32(e.n, first);
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_add_ps(e.rest, set(1)), power_of_2(first)), power_of_2(second));
}

static QLORA_INLINE __m256 inverse_of_1_and(__m256 e) { return _mm256_div_ps(set(1), _mm256_add_ps(set(1), e)); }
static QLORA_INLINE __m256 sigmoid(__m256 x) {
    return inverse_of_1_and(exp8(_mm256_sub_ps(_mm256_setzero_ps(), x)));
}

static QLORA_INLINE __m256 tanh_of_half(__m256 d) {
    const __m256 sign = set(-0.0f);
    const Power e = power_of(_mm256_max_ps(set(tanh_constants::least), _mm256_or_ps(d, sign)));
    const __m256 power = power_of_2(e.n), t = _mm256_fmadd_ps(e.rest, power, _mm256_sub_ps(power, set(1)));
    const __m256 size = _mm256_andnot_ps(sign, _mm256_div_ps(t, _mm256_add_ps(set(2), t)));
    return _mm256_or_ps(size, _mm256_and_ps(sign, d));
}

static QLORA_INLINE __m256 held_square(__m256 x) {
    return _mm256_min_ps(set(gelu_constants::most), _mm256_mul_ps(x, x));
}
static QLORA_INLINE __m256 gelu_exp(__m256 x, __m256 square) {
    using namespace gelu_constants;
    return exp8(_mm256_mul_ps(x, _mm256_fnmadd_ps(set(cubic), square, set(-linear))));
}

static QLORA_INLINE float total(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static QLORA_INLINE __m256 together(__m256 a, __m256 b, __m256 c, __m256 d) {
    return _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
}
static QLORA_INLINE float total(__m256 a, __m256 b, __m256 c, __m256 d) { return total(together(a, b, c, d)); }

// total() of four vectors at once, with the same additions.
static QLORA_INLINE __m128 totals(const __m256 (&v)[4]) {
    __m128 s[4];
    QLORA_UNROLL
    for (int r = 0; r < 4; ++r) s[r] = _mm_add_ps(_mm256_castps256_ps128(v[r]), _mm256_extractf128_ps(v[r], 1));
    _MM_TRANSPOSE4_PS(s[0], s[1], s[2], s[3]);
    return _mm_add_ps(_mm_add_ps(s[0], s[2]), _mm_add_ps(s[1], s[3]));
}

static QLORA_INLINE __m256 lanes_of_dot(const float* a, const float* b, int64_t n) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
        s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
        s2 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 16), _mm256_loadu_ps(b + i + 16), s2);
        s3 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 24), _mm256_loadu_ps(b + i + 24), s3);
    }
    for (; i + 8 <= n; i += 8) s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
    if (i < n) {
        const __m256i lanes = first_lanes(n - i);
        s0 = _mm256_fmadd_ps(load(a + i, lanes), load(b + i, lanes), s0);
    }
    return together(s0, s1, s2, s3);
}

static float dot(const float* a, const float* b, int64_t n) { return total(lanes_of_dot(a, b, n)); }

// Four rows share their last additions, which cost more than the products of a short row, such as one of an adapter's
// factors.
static void dots(const float* a, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    int64_t j = 0;
    for (; j + 4 <= rows; j += 4) {
        __m256 v[4];
        QLORA_UNROLL
        for (int r = 0; r < 4; ++r) {
            const float* row = b + (j + r) * ldb;
            _mm_prefetch(reinterpret_cast<const char*>(row + 512), _MM_HINT_T0);
            v[r] = lanes_of_dot(a, row, n);
        }
        _mm_storeu_ps(y + j, totals(v));
    }
    for (; j < rows; ++j) y[j] = dot(a, b + j * ldb, n);
}

// Long sums are halved until each lane adds sixteen numbers at most: the error grows with the logarithm of n, also for
// equal numbers.
static float sum(const float* a, int64_t n) {
    if (n > 32 * 16) {
        const int64_t half = n / 2 / 32 * 32;
        return sum(a, half) + sum(a + half, n - half);
    }
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        s0 = _mm256_add_ps(s0, _mm256_loadu_ps(a + i));
        s1 = _mm256_add_ps(s1, _mm256_loadu_ps(a + i + 8));
        s2 = _mm256_add_ps(s2, _mm256_loadu_ps(a + i + 16));
        s3 = _mm256_add_ps(s3, _mm256_loadu_ps(a + i + 24));
    }
    for (; i < n; i += 8) s0 = _mm256_add_ps(s0, load(a + i, first_lanes(n - i)));
    return total(s0, s1, s2, s3);
}

static float max(const float* a, int64_t n) {
    const __m256 lowest = set(-__builtin_inff());
    __m256 m = lowest;
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        m = _mm256_max_ps(_mm256_blendv_ps(lowest, load(a + i, lanes), _mm256_castsi256_ps(lanes)), m);   // a NaN loses
    }
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static void axpy(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        _mm256_maskstore_ps(y + i, lanes, _mm256_fmadd_ps(set(s), load(x + i, lanes), load(y + i, lanes)));
    }
}

static void scale(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(set(s), load(x + i, lanes)));
    }
}

static void add(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        _mm256_maskstore_ps(y + i, lanes, _mm256_add_ps(load(a + i, lanes), load(b + i, lanes)));
    }
}

static void mul(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(load(a + i, lanes), load(b + i, lanes)));
    }
}

static float exp_sum(const float* x, float shift, float* y, int64_t n) {
    __m256 s = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 e = exp8(_mm256_sub_ps(load(x + i, lanes), set(shift)));
        _mm256_maskstore_ps(y + i, lanes, e);
        s = _mm256_add_ps(s, _mm256_and_ps(e, _mm256_castsi256_ps(lanes)));
    }
    return total(s);
}

static void silu(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 v = load(x + i, lanes);
        _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(v, sigmoid(v)));
    }
}

static void swiglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 g = load(gate + i, lanes);
        _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(_mm256_mul_ps(g, sigmoid(g)), load(up + i, lanes)));
    }
}

static void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 g = load(gate + i, lanes), u = load(up + i, lanes), d = load(dy + i, lanes), s = sigmoid(g),
                     ds = _mm256_mul_ps(d, s);
        const __m256 slope = _mm256_fmadd_ps(g, _mm256_sub_ps(set(1), s), set(1));
        _mm256_maskstore_ps(dgate + i, lanes, _mm256_mul_ps(_mm256_mul_ps(ds, u), slope));
        _mm256_maskstore_ps(dup + i, lanes, _mm256_mul_ps(ds, g));
    }
}

static void geglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 g = load(gate + i, lanes), s = inverse_of_1_and(gelu_exp(g, held_square(g)));
        _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(_mm256_mul_ps(g, s), load(up + i, lanes)));
    }
}

static void geglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    using namespace gelu_constants;
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 g = load(gate + i, lanes), u = load(up + i, lanes), d = load(dy + i, lanes);
        const __m256 square = held_square(g), e = gelu_exp(g, square), s = inverse_of_1_and(e);
        const __m256 gelu = _mm256_mul_ps(g, s), rest = _mm256_mul_ps(_mm256_min_ps(set(finite), e), s);
        const __m256 slope = _mm256_fmadd_ps(set(3 * cubic), square, set(linear));
        const __m256 dgelu = _mm256_fmadd_ps(_mm256_mul_ps(gelu, rest), slope, s);
        _mm256_maskstore_ps(dgate + i, lanes, _mm256_mul_ps(_mm256_mul_ps(d, u), dgelu));
        _mm256_maskstore_ps(dup + i, lanes, _mm256_mul_ps(d, gelu));
    }
}

static void softcap(float cap, const float* x, float* y, int64_t n) {
    const float by = 2 / cap;
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 t = tanh_of_half(_mm256_mul_ps(load(x + i, lanes), set(by)));
        _mm256_maskstore_ps(y + i, lanes, _mm256_mul_ps(set(cap), t));
    }
}

static void softcap_back(float cap, const float* y, const float* dy, float* dx, int64_t n) {
    const float by = 1 / cap;
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i lanes = first_lanes(n - i);
        const __m256 t = _mm256_mul_ps(load(y + i, lanes), set(by));
        _mm256_maskstore_ps(dx + i, lanes, _mm256_mul_ps(load(dy + i, lanes), _mm256_fnmadd_ps(t, t, set(1))));
    }
}

}  // namespace vec_avx2_room

const Vec vec_avx2{vec_avx2_room::dot, vec_avx2_room::dots, vec_avx2_room::sum, vec_avx2_room::max, vec_avx2_room::axpy,
                   vec_avx2_room::scale, vec_avx2_room::add, vec_avx2_room::mul, vec_avx2_room::exp_sum,
                   vec_avx2_room::silu, vec_avx2_room::swiglu, vec_avx2_room::swiglu_back, vec_avx2_room::geglu,
                   vec_avx2_room::geglu_back, vec_avx2_room::softcap, vec_avx2_room::softcap_back};

}}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
