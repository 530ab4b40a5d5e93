// unpack_avx2.cpp - 4-bit codes to floats with AVX2: two tables of eight entries, chosen by the top bit of the code.
#include "src/cpu/avx2/codes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

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
    Ahead ahead(codes, rows * (cols / 2));
    for (int64_t i = 0; i < cols; i += 64) {
        ahead.ask(32 * rows);
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) {
            const uint8_t* p = codes + r * (cols / 2) + i / 2;
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
    for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of(high, many, codes + r * (cols / 2), scales + r * (cols / 64), planes, cols, x, ldx, out + r * many);
    });
}

}  // namespace unpack_avx2_room

constinit const FourBitKernels four_bit_avx2{unpack_avx2_room::unpack, unpack_avx2_room::dots, false};

}}  // namespace qlora

QLORA_TARGET_END
#endif
