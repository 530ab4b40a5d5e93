// unpack_avx512.cpp - 4-bit codes with AVX-512: the whole codebook is one register, and the permutation that looks
// codes up uses only the low four bits of each index, so a shifted word needs no mask.
#include "src/cpu/avx512/kernels_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace unpack_avx512_room {

static void unpack(const uint8_t* codes, int64_t stride, const float* scales, int64_t half, const float* codebook,
                   int64_t rows, int64_t count, float* out) {
    const __m512 table = _mm512_loadu_ps(codebook);
    // element e of a word is nibble e ^ 1
    const __m512i shifts = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);
    const __m512i words01 = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                  words23 = _mm512_add_epi32(words01, _mm512_set1_epi32(2));
    const int64_t runs = (count + half * 32 + 63) / 64;
    for (int64_t r = 0; r < rows; ++r, codes += stride, scales += runs, out += count) {
        for (int64_t i = 0; i < count; i += 32) {
            const __m512 scale = _mm512_set1_ps(scales[(i / 32 + half) / 2]);
            const __m512i words = _mm512_castsi128_si512(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i / 2)));
            const __m512i a = _mm512_srlv_epi32(_mm512_permutexvar_epi32(words01, words), shifts);
            const __m512i b = _mm512_srlv_epi32(_mm512_permutexvar_epi32(words23, words), shifts);
            _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_permutexvar_ps(a, table), scale));
            _mm512_storeu_ps(out + i + 16, _mm512_mul_ps(_mm512_permutexvar_ps(b, table), scale));
        }
    }
}

// One step: 128 codes of each of `high` rows times the same part of m vectors, sums += scale * (codebook[code] . x).
// high and m are constants wherever this is inlined; the sum of a row and a vector is the same for all of them.
static QLORA_INLINE void step(const int high, const int m, __m512i words[4], const __m512 scales[4], __m512 table,
                              const float* x, int64_t stride, __m512 sums[4][gemv_rows]) {
    __m512 part[4][gemv_rows];
    QLORA_UNROLL
    for (int p = 0; p < 8; ++p) {
        __m512 v[gemv_rows];
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) v[t] = _mm512_load_ps(x + t * stride + p * 16);
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const __m512 w = _mm512_permutexvar_ps(words[r], table);
            words[r] = _mm512_srli_epi32(words[r], 4);
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) part[r][t] = p ? _mm512_fmadd_ps(w, v[t], part[r][t]) : _mm512_mul_ps(w, v[t]);
        }
    }
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums[r][t] = _mm512_fmadd_ps(part[r][t], scales[r], sums[r][t]);
    }
}

static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* codes, const float* scale, __m512 table,
                                 int64_t cols, const float* x, float* out) {
    const int64_t stride = (cols + 127) / 128 * 128, whole = cols / 128 * 128, runs = cols / 64;
    __m512 sums[4][gemv_rows];
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums[r][t] = _mm512_setzero_ps();
    }
    __m512i words[4];
    __m512 scales[4];
    Ahead ahead(codes, high * (cols / 2));
    for (int64_t c = 0; c < whole; c += 128) {
        ahead.ask(64 * high);
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            words[r] = _mm512_loadu_si512(codes + (r * cols + c) / 2);
            scales[r] = _mm512_mask_broadcastss_ps(_mm512_set1_ps(scale[r * runs + c / 64]), 0xff00,
                                                   _mm_load_ss(scale + r * runs + c / 64 + 1));
        }
        step(high, m, words, scales, table, x + c, stride, sums);
    }
    if (whole < cols) {                                // half a step: the other lanes of x are 0
        ahead.ask(32 * high);
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            words[r] = _mm512_maskz_loadu_epi32(0xff, codes + (r * cols + whole) / 2);
            scales[r] = _mm512_set1_ps(scale[r * runs + whole / 64]);
        }
        step(high, m, words, scales, table, x + whole, stride, sums);
    }
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) out[r * m + t] = _mm512_reduce_add_ps(sums[r][t]);
    }
}

// Several rows at once share the loads of x: four for one vector, two for more, as many as the registers hold.
static QLORA_INLINE void dots_of(const int m, const uint8_t* codes, const float* scales, const float* codebook,
                                 int64_t rows, int64_t cols, const float* x, float* out) {
    const __m512 table = _mm512_loadu_ps(codebook);
    constexpr int many[] = {0, 4, 4, 2, 2};
    int64_t r = 0;
    for (; r + many[m] <= rows; r += many[m])
        rows_of(many[m], m, codes + r * cols / 2, scales + r * (cols / 64), table, cols, x, out + r * m);
    for (; r < rows; ++r) rows_of(1, m, codes + r * cols / 2, scales + r * (cols / 64), table, cols, x, out + r * m);
}

static void dots(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols,
                 const float* x, int64_t, int64_t m, float* out) {
    switch (m) {
        case 1: return dots_of(1, codes, scales, codebook, rows, cols, x, out);
        case 2: return dots_of(2, codes, scales, codebook, rows, cols, x, out);
        case 3: return dots_of(3, codes, scales, codebook, rows, cols, x, out);
        default: return dots_of(4, codes, scales, codebook, rows, cols, x, out);
    }
}

}  // namespace unpack_avx512_room

constinit const FourBitKernels four_bit_avx512{unpack_avx512_room::unpack, unpack_avx512_room::dots, true};

}}  // namespace qlora

QLORA_TARGET_END
#endif
