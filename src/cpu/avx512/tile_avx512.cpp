// tile_avx512.cpp - the tile products with AVX-512: 8 x 32 sums, for which a step has 2 loads and 8 broadcasts:
// the multipliers are the limit.
#include "src/cpu/avx512/kernels_avx512.h"
#include "src/cpu/avx512/lanes_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace tile_avx512_room {

using namespace lanes_avx512;
constexpr int tall = 8;

#include "src/cpu/tile_blocks.inl"

static void dots(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    const __mmask16 tail = __mmask16((1u << (n & 15)) - 1);
    for (int64_t j = 0; j < rows; ++j) {
        const float* row = b + j * ldb;
        __m512 s0 = _mm512_setzero_ps(), s1 = s0;
        int64_t i = 0;
        for (; i + 32 <= n; i += 32) {
            s0 = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(row + i), s0);
            s1 = _mm512_fmadd_ps(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(row + i + 16), s1);
        }
        if (i + 16 <= n) { s0 = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(row + i), s0); i += 16; }
        if (tail) s1 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(tail, x + i), _mm512_maskz_loadu_ps(tail, row + i), s1);
        // _mm512_reduce_add_ps, spelled so that GCC 12 does not warn of itself
        const __m512d sums = _mm512_castps_pd(_mm512_add_ps(s0, s1));
        const __m256 half = _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, sums, 0)),
                                          _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, sums, 1)));
        __m128 q = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        q = _mm_add_ps(q, _mm_movehl_ps(q, q));
        y[j] = _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
    }
}

static void mix(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    int64_t i = mix_blocks(s, b, ldb, rows, n, y);
    for (; i < n; i += 16) {
        const __mmask16 mask = n - i >= 16 ? __mmask16(0xffff) : __mmask16((1u << (n - i)) - 1);
        __m512 sum = _mm512_maskz_loadu_ps(mask, y + i);
        for (int64_t j = 0; j < rows; ++j)
            sum = _mm512_fmadd_ps(_mm512_set1_ps(s[j]), _mm512_maskz_loadu_ps(mask, b + j * ldb + i), sum);
        _mm512_mask_storeu_ps(y + i, mask, sum);
    }
}

}  // namespace tile_avx512_room

constinit const Tile tile_avx512{tile_avx512_room::product, tile_avx512_room::dots, tile_avx512_room::mix,
                                 &half_rows_avx512};

}}  // namespace qlora

QLORA_TARGET_END
#endif
