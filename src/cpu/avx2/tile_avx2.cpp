// tile_avx2.cpp - the tile products with AVX2: 4 x 16 sums, eight of the sixteen registers.
#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx2/lanes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace tile_avx2_room {

using namespace lanes_avx2;
constexpr int tall = 4;

#include "src/cpu/tile_blocks.inl"

static void dots(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) {
        const float* row = b + j * ldb;
        __m256 s0 = _mm256_setzero_ps(), s1 = s0;
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) {
            s0 = _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(row + i), s0);
            s1 = _mm256_fmadd_ps(_mm256_loadu_ps(x + i + 8), _mm256_loadu_ps(row + i + 8), s1);
        }
        s0 = _mm256_add_ps(s0, s1);
        __m128 q = _mm_add_ps(_mm256_castps256_ps128(s0), _mm256_extractf128_ps(s0, 1));
        q = _mm_add_ps(q, _mm_movehl_ps(q, q));
        float sum = _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
        for (; i < n; ++i) sum += x[i] * row[i];
        y[j] = sum;
    }
}

static void mix(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    int64_t i = mix_blocks(s, b, ldb, rows, n, y);
    for (; i < n; ++i)
        for (int64_t j = 0; j < rows; ++j) y[i] += s[j] * b[j * ldb + i];
}

}  // namespace tile_avx2_room

constinit const Tile tile_avx2{tile_avx2_room::product, tile_avx2_room::dots, tile_avx2_room::mix};

}}  // namespace qlora

QLORA_TARGET_END
#endif
