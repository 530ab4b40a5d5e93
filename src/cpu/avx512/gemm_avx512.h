// gemm_avx512.h - what the register tiles with AVX-512 share, of floats and of bf16: 12 x 32, twenty-four sums in
// thirty-two registers.
#pragma once
#include "src/cpu/avx512/kernels_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_tiles_avx512 {

constexpr int tall = 12;

static QLORA_INLINE __mmask16 first_lanes(int64_t n) {
    return n >= 16 ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1);
}

// 16 x 16 words of 32 bits, in four rounds: pairs of rows, pairs of those, then quarters of registers.
static QLORA_INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    QLORA_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    QLORA_UNROLL
    for (int i = 0; i < 16; i += 4) {                  // r[i + j]: column j of each quarter, of rows i .. i + 3
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) {                      // even quarters of rows 0-7 and 8-15, then the odd ones
        t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        t[j + 8] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
    }
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 4], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 4], 0xdd);
        r[j + 4] = _mm512_shuffle_i32x4(t[j + 8], t[j + 12], 0x88);
        r[j + 12] = _mm512_shuffle_i32x4(t[j + 8], t[j + 12], 0xdd);
    }
}

static QLORA_INLINE void store_transposed(const __m512i r[16], int64_t deep, __mmask16 kept, int64_t width,
                                          int32_t* out) {
    if (deep >= 16) {
        QLORA_UNROLL
        for (int i = 0; i < 16; ++i) _mm512_mask_storeu_epi32(out + i * width, kept, r[i]);
    } else {
        QLORA_UNROLL
        for (int i = 0; i < 16; ++i) {
            if (i < deep) _mm512_mask_storeu_epi32(out + i * width, kept, r[i]);
        }
    }
}

static QLORA_INLINE void put(float* c, __m512 sum, __mmask16 kept, float alpha, float beta) {
    __m512 value = _mm512_mul_ps(sum, _mm512_set1_ps(alpha));
    if (beta != 0) value = _mm512_fmadd_ps(_mm512_set1_ps(beta), _mm512_maskz_loadu_ps(kept, c), value);
    _mm512_mask_storeu_ps(c, kept, value);
}

static QLORA_INLINE void put_all(const int height, const int wide, const __m512 sums[tall][2], float* c, int64_t ldc,
                                 int64_t rows, int64_t cols, float alpha, float beta) {
    const __mmask16 k0 = first_lanes(cols), k1 = first_lanes(cols - 16);
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) {
        if (r >= rows) break;
        put(c + r * ldc, sums[r][0], k0, alpha, beta);
        if (wide > 1) put(c + r * ldc + 16, sums[r][1], k1, alpha, beta);
    }
}

// The rows of c are far apart: asking for them before the long loop hides the way to memory.
static QLORA_INLINE void prefetch(const float* c, int64_t ldc, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
        _mm_prefetch(reinterpret_cast<const char*>(c + r * ldc), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(c + r * ldc + 16), _MM_HINT_T0);
    }
}

}  // namespace gemm_tiles_avx512
}}  // namespace qlora

QLORA_TARGET_END
#endif
