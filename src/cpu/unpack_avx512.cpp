// unpack_avx512.cpp - 4-bit codes with AVX-512: the whole codebook is one register, and the permutation that looks codes up
// uses only the low four bits of each index, so a shifted word needs no mask.
#include "src/cpu/intrinsics.h"
#include "src/cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace qlora::inline v0_1 {
namespace unpack_avx512_room {

static void unpack(const uint8_t* codes, const float* scales, int64_t half, const float* codebook, int64_t count, float* out) {
    const __m512 table = _mm512_loadu_ps(codebook);
    const __m512i shifts = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);   // element e is nibble e ^ 1
    for (int64_t i = 0; i < count; i += 32) {
        const __m512 scale = _mm512_set1_ps(scales[(i / 32 + half) / 2]);
        int32_t word[4];
        __builtin_memcpy(word, codes + i / 2, 16);
        const __m512i a = _mm512_mask_set1_epi32(_mm512_set1_epi32(word[0]), 0xff00, word[1]);
        const __m512i b = _mm512_mask_set1_epi32(_mm512_set1_epi32(word[2]), 0xff00, word[3]);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srlv_epi32(a, shifts), table), scale));
        _mm512_storeu_ps(out + i + 16, _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srlv_epi32(b, shifts), table), scale));
    }
}

// 128 codes of one row times the same part of m vectors: sums[t] += scale * (codebook[code] . x[t]).
static QLORA_INLINE void step(const int m, __m512i words, __m512 scale, __m512 table, const float* x, int64_t stride, __m512 sums[gemv_rows]) {
    __m512 even[gemv_rows], odd[gemv_rows];
    QLORA_UNROLL
    for (int p = 0; p < 8; p += 2) {
        const __m512 w0 = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4 * p), table);
        const __m512 w1 = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4 * p + 4), table);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const float* part = x + t * stride + p * 16;
            even[t] = p ? _mm512_fmadd_ps(w0, _mm512_loadu_ps(part), even[t]) : _mm512_mul_ps(w0, _mm512_loadu_ps(part));
            odd[t] = p ? _mm512_fmadd_ps(w1, _mm512_loadu_ps(part + 16), odd[t]) : _mm512_mul_ps(w1, _mm512_loadu_ps(part + 16));
        }
    }
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) sums[t] = _mm512_fmadd_ps(_mm512_add_ps(even[t], odd[t]), scale, sums[t]);
}

static QLORA_INLINE void dots_of(const int m, const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols, const float* x, float* out) {
    const __m512 table = _mm512_loadu_ps(codebook);
    const int64_t stride = (cols + 127) / 128 * 128, whole = cols / 128 * 128;
    for (int64_t r = 0; r < rows; ++r) {
        __m512 sums[gemv_rows];
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums[t] = _mm512_setzero_ps();
        for (int64_t c = 0; c < whole; c += 128, codes += 64, scales += 2) {
            const __m512 scale = _mm512_mask_broadcastss_ps(_mm512_set1_ps(scales[0]), 0xff00, _mm_load_ss(scales + 1));
            step(m, _mm512_loadu_si512(codes), scale, table, x + c, stride, sums);
        }
        if (whole < cols) {                            // half a step: the other lanes of x are 0
            step(m, _mm512_maskz_loadu_epi32(0xff, codes), _mm512_set1_ps(scales[0]), table, x + whole, stride, sums);
            codes += 32;
            scales += 1;
        }
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) out[r * m + t] = _mm512_reduce_add_ps(sums[t]);
    }
}

static void dots(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols, const float* x, int64_t m, float* out) {
    switch (m) {
        case 1: return dots_of(1, codes, scales, codebook, rows, cols, x, out);
        case 2: return dots_of(2, codes, scales, codebook, rows, cols, x, out);
        case 3: return dots_of(3, codes, scales, codebook, rows, cols, x, out);
        default: return dots_of(4, codes, scales, codebook, rows, cols, x, out);
    }
}

}  // namespace unpack_avx512_room

const FourBitKernels four_bit_avx512{unpack_avx512_room::unpack, unpack_avx512_room::dots};

}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
