// unpack_avx2.cpp - 4-bit codes to floats with AVX2: two tables of eight entries, chosen by the top bit of the code.
#include "src/cpu/codes_avx2.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace unpack_avx2_room {

using namespace codes_avx2;

static void unpack(const uint8_t* codes, int64_t stride, const float* scales, int64_t half, const float* codebook,
                   int64_t rows, int64_t count, float* out) {
    const __m256 low = _mm256_loadu_ps(codebook), high = _mm256_loadu_ps(codebook + 8);
    const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);   // element e of a word is nibble e ^ 1
    const int64_t runs = (count + half * 32 + 63) / 64;
    for (int64_t r = 0; r < rows; ++r, codes += stride, scales += runs, out += count) {
        for (int64_t i = 0; i < count; i += 32) {
            const __m256 scale = _mm256_broadcast_ss(scales + (i / 32 + half) / 2);
            for (int64_t j = i; j < i + 32; j += 8) {
                int32_t word;
                __builtin_memcpy(&word, codes + j / 2, 4);
                const __m256i code =
                    _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);    // the tables look at bits 0 to 2 only
                const __m256 top = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
                const __m256 value =
                    _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), top);
                _mm256_storeu_ps(out + j, _mm256_mul_ps(value, scale));
            }
        }
    }
}

// The products and the order of sums are those of unpack() and Vec::dot: the same bits.
static QLORA_INLINE void rows_of(const int rows, const int m, const uint8_t* codes, const float* scales,
                                 const BytePlanes& planes, int64_t cols, const float* x, int64_t ldx, float* out) {
    __m256 sums[4][4];                                 // of row r and vector t at r * m + t
    QLORA_UNROLL
    for (int i = 0; i < rows * m * 4; ++i) sums[i / 4][i % 4] = _mm256_setzero_ps();
    for (int64_t i = 0; i < cols; i += 64) {
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) {
            const uint8_t* p = codes + r * (cols / 2) + i / 2;
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_ahead), _MM_HINT_T0);
            const __m256 scale = _mm256_broadcast_ss(scales + r * (cols / 64) + i / 64);
            QLORA_UNROLL
            for (int half = 0; half < 2; ++half) {
                const Four w = look_up(planes, dealt_pairs(p + half * 16));
                QLORA_UNROLL
                for (int k = 0; k < 4; ++k) {
                    const __m256 scaled = _mm256_mul_ps(w.of[k], scale);
                    const float* at = x + i + half * 32 + k * 8;
                    QLORA_UNROLL
                    for (int t = 0; t < m; ++t)
                        sums[r * m + t][k] = _mm256_fmadd_ps(_mm256_loadu_ps(at + t * ldx), scaled, sums[r * m + t][k]);
                }
            }
        }
    }
    QLORA_UNROLL
    for (int i = 0; i < rows * m; ++i)
        out[i] = total(_mm256_add_ps(_mm256_add_ps(sums[i][0], sums[i][1]), _mm256_add_ps(sums[i][2], sums[i][3])));
}

static void dots(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols,
                 const float* x, int64_t ldx, int64_t m, float* out) {
    const BytePlanes planes = planes_of(codebook);
    int64_t r = 0;
    if (m == 1)
        for (; r + 2 <= rows; r += 2)
            rows_of(2, 1, codes + r * (cols / 2), scales + r * (cols / 64), planes, cols, x, ldx, out + r);
    for (; r < rows; ++r) {
        const uint8_t* row = codes + r * (cols / 2);
        const float* by = scales + r * (cols / 64);
        switch (m) {
            case 1: rows_of(1, 1, row, by, planes, cols, x, ldx, out + r); break;
            case 2: rows_of(1, 2, row, by, planes, cols, x, ldx, out + r * 2); break;
            case 3: rows_of(1, 3, row, by, planes, cols, x, ldx, out + r * 3); break;
            default: rows_of(1, 4, row, by, planes, cols, x, ldx, out + r * 4);
        }
    }
}

}  // namespace unpack_avx2_room

const FourBitKernels four_bit_avx2{unpack_avx2_room::unpack, unpack_avx2_room::dots, false, nullptr};

}}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
