// vec_avx512.cpp - the vector loops with AVX-512: sixteen lanes, and a mask for the last few.
#include "src/cpu/exp_constants.h"
#include "src/cpu/intrinsics.h"
#include "src/cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace vec_avx512_room {

static QLORA_INLINE __mmask16 first_lanes(int64_t n) { return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }
static QLORA_INLINE __m512 set(float x) { return _mm512_set1_ps(x); }
static QLORA_INLINE __m512 load(const float* p, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, p); }

struct Power {                                         // e^x = 2^n (1 + rest)
    __m512 n, rest;
};

static QLORA_INLINE Power power_of(__m512 x) {
    using namespace exp_constants;
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, set(log2e)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r = _mm512_fnmadd_ps(n, set(ln2_low), _mm512_fnmadd_ps(n, set(ln2_high), x));
    __m512 p = _mm512_fmadd_ps(set(p4), r, set(p3));
    p = _mm512_fmadd_ps(p, r, set(p2));
    p = _mm512_fmadd_ps(p, r, set(p1));
    p = _mm512_fmadd_ps(p, r, set(p0));
    return {n, _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, r)};
}

static QLORA_INLINE __m512 exp16(__m512 x) {
    using namespace exp_constants;
    const Power e = power_of(_mm512_min_ps(set(most), _mm512_max_ps(set(least), x)));   // the second operand, if NaN
    return _mm512_scalef_ps(_mm512_add_ps(e.rest, set(1)), e.n);
}

static QLORA_INLINE __m512 inverse_of_1_and(__m512 e) { return _mm512_div_ps(set(1), _mm512_add_ps(set(1), e)); }
static QLORA_INLINE __m512 sigmoid(__m512 x) {
    return inverse_of_1_and(exp16(_mm512_sub_ps(_mm512_setzero_ps(), x)));
}

static QLORA_INLINE __m512 tanh_of_half(__m512 d) {
    const __m512 sign = set(-0.0f);
    const Power e = power_of(_mm512_max_ps(set(tanh_constants::least), _mm512_or_ps(d, sign)));
    const __m512 power = _mm512_scalef_ps(set(1), e.n),
                 t = _mm512_fmadd_ps(e.rest, power, _mm512_sub_ps(power, set(1)));
    const __m512 size = _mm512_andnot_ps(sign, _mm512_div_ps(t, _mm512_add_ps(set(2), t)));
    return _mm512_or_ps(size, _mm512_and_ps(sign, d));
}

static QLORA_INLINE __m512 held_square(__m512 x) {
    return _mm512_min_ps(set(gelu_constants::most), _mm512_mul_ps(x, x));
}
static QLORA_INLINE __m512 gelu_exp(__m512 x, __m512 square) {
    using namespace gelu_constants;
    return exp16(_mm512_mul_ps(x, _mm512_fnmadd_ps(set(cubic), square, set(-linear))));
}

static QLORA_INLINE float total(__m512 a, __m512 b, __m512 c, __m512 d) {
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
}

static float dot(const float* a, const float* b, int64_t n) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), s0);
        s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), s1);
        s2 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 32), _mm512_loadu_ps(b + i + 32), s2);
        s3 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 48), _mm512_loadu_ps(b + i + 48), s3);
    }
    for (; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        s0 = _mm512_fmadd_ps(load(a + i, lanes), load(b + i, lanes), s0);
    }
    return total(s0, s1, s2, s3);
}

static void dots(const float* a, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) y[j] = dot(a, b + j * ldb, n);
}

// Long sums are halved until each lane adds sixteen numbers at most: the error grows with the logarithm of n, also for
// equal numbers.
static float sum(const float* a, int64_t n) {
    if (n > 64 * 16) {
        const int64_t half = n / 2 / 64 * 64;
        return sum(a, half) + sum(a + half, n - half);
    }
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        s0 = _mm512_add_ps(s0, _mm512_loadu_ps(a + i));
        s1 = _mm512_add_ps(s1, _mm512_loadu_ps(a + i + 16));
        s2 = _mm512_add_ps(s2, _mm512_loadu_ps(a + i + 32));
        s3 = _mm512_add_ps(s3, _mm512_loadu_ps(a + i + 48));
    }
    for (; i < n; i += 16) s0 = _mm512_add_ps(s0, load(a + i, first_lanes(n - i)));
    return total(s0, s1, s2, s3);
}

static float max(const float* a, int64_t n) {
    const __m512 lowest = set(-__builtin_inff());
    __m512 m = lowest;
    // a NaN loses
    for (int64_t i = 0; i < n; i += 16) m = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, first_lanes(n - i), a + i), m);
    return _mm512_reduce_max_ps(m);
}

static void axpy(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_fmadd_ps(set(s), load(x + i, lanes), load(y + i, lanes)));
    }
}

static void scale(float s, const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(set(s), load(x + i, lanes)));
    }
}

static void add(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_add_ps(load(a + i, lanes), load(b + i, lanes)));
    }
}

static void mul(const float* a, const float* b, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(load(a + i, lanes), load(b + i, lanes)));
    }
}

static float exp_sum(const float* x, float shift, float* y, int64_t n) {
    __m512 s = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 e = exp16(_mm512_sub_ps(load(x + i, lanes), set(shift)));
        _mm512_mask_storeu_ps(y + i, lanes, e);
        s = _mm512_mask_add_ps(s, lanes, s, e);
    }
    return _mm512_reduce_add_ps(s);
}

static void silu(const float* x, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 v = load(x + i, lanes);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(v, sigmoid(v)));
    }
}

static void swiglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 g = load(gate + i, lanes);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), load(up + i, lanes)));
    }
}

static void swiglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 g = load(gate + i, lanes), u = load(up + i, lanes), d = load(dy + i, lanes), s = sigmoid(g),
                     ds = _mm512_mul_ps(d, s);
        const __m512 slope = _mm512_fmadd_ps(g, _mm512_sub_ps(set(1), s), set(1));
        _mm512_mask_storeu_ps(dgate + i, lanes, _mm512_mul_ps(_mm512_mul_ps(ds, u), slope));
        _mm512_mask_storeu_ps(dup + i, lanes, _mm512_mul_ps(ds, g));
    }
}

static void geglu(const float* gate, const float* up, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 g = load(gate + i, lanes), s = inverse_of_1_and(gelu_exp(g, held_square(g)));
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(_mm512_mul_ps(g, s), load(up + i, lanes)));
    }
}

static void geglu_back(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
    using namespace gelu_constants;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 g = load(gate + i, lanes), u = load(up + i, lanes), d = load(dy + i, lanes);
        const __m512 square = held_square(g), e = gelu_exp(g, square), s = inverse_of_1_and(e);
        const __m512 gelu = _mm512_mul_ps(g, s), rest = _mm512_mul_ps(_mm512_min_ps(set(finite), e), s);
        const __m512 slope = _mm512_fmadd_ps(set(3 * cubic), square, set(linear));
        const __m512 dgelu = _mm512_fmadd_ps(_mm512_mul_ps(gelu, rest), slope, s);
        _mm512_mask_storeu_ps(dgate + i, lanes, _mm512_mul_ps(_mm512_mul_ps(d, u), dgelu));
        _mm512_mask_storeu_ps(dup + i, lanes, _mm512_mul_ps(d, gelu));
    }
}

static void softcap(float cap, const float* x, float* y, int64_t n) {
    const float by = 2 / cap;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 t = tanh_of_half(_mm512_mul_ps(load(x + i, lanes), set(by)));
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(set(cap), t));
    }
}

static void softcap_back(float cap, const float* y, const float* dy, float* dx, int64_t n) {
    const float by = 1 / cap;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        const __m512 t = _mm512_mul_ps(load(y + i, lanes), set(by));
        _mm512_mask_storeu_ps(dx + i, lanes, _mm512_mul_ps(load(dy + i, lanes), _mm512_fnmadd_ps(t, t, set(1))));
    }
}

}  // namespace vec_avx512_room

const Vec vec_avx512{vec_avx512_room::dot, vec_avx512_room::dots, vec_avx512_room::sum, vec_avx512_room::max,
                     vec_avx512_room::axpy, vec_avx512_room::scale, vec_avx512_room::add, vec_avx512_room::mul,
                     vec_avx512_room::exp_sum, vec_avx512_room::silu, vec_avx512_room::swiglu,
                     vec_avx512_room::swiglu_back, vec_avx512_room::geglu, vec_avx512_room::geglu_back,
                     vec_avx512_room::softcap, vec_avx512_room::softcap_back};

}}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
