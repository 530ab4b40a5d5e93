// vec_avx2.cpp - the vector loops with AVX2 and FMA: eight lanes, and masked loads and stores for the last few.
#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx2/lanes_avx2.h"
#include "src/cpu/exp_constants.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace vec_avx2_room {

using namespace lanes_avx2;

#include "src/cpu/vec_loops.inl"

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
        const Lanes lanes = first_lanes(n - i);
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

}  // namespace vec_avx2_room

constinit const Vec vec_avx2 QLORA_VEC_OF(vec_avx2_room);

}}  // namespace qlora

QLORA_TARGET_END
#endif
