// vec_avx512.cpp - the vector loops with AVX-512: sixteen lanes, and a mask for the last few.
#include "src/cpu/avx512/kernels_avx512.h"
#include "src/cpu/avx512/lanes_avx512.h"
#include "src/cpu/exp_constants.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace vec_avx512_room {

using namespace lanes_avx512;

#include "src/cpu/vec_loops.inl"

static QLORA_INLINE __m512 lanes_of_dot(const float* a, const float* b, int64_t n) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), s0);
        s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), s1);
        s2 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 32), _mm512_loadu_ps(b + i + 32), s2);
        s3 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 48), _mm512_loadu_ps(b + i + 48), s3);
    }
    for (; i < n; i += 16) {
        const Lanes lanes = first_lanes(n - i);
        s0 = _mm512_fmadd_ps(load(a + i, lanes), load(b + i, lanes), s0);
    }
    return together(s0, s1, s2, s3);
}

static float dot(const float* a, const float* b, int64_t n) { return total(lanes_of_dot(a, b, n)); }

// Sixteen rows share their last additions, which cost more than the products of a short row. Such as an adapter's
// factors are read once, like weights.
static void dots(const float* a, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    Ahead ahead(b, 0);
    int64_t j = 0;
    for (; j + 16 <= rows; j += 16) {
        const float* first = b + j * ldb;
        Vector v[16];
        if (n == 16) {
            const Vector all = load(a);
            QLORA_UNROLL
            for (int r = 0; r < 16; ++r) v[r] = times_plus(all, load(first + r * ldb), zero());
            ahead.ask(16 * 64);
        } else {
            for (int r = 0; r < 16; ++r) {
                v[r] = lanes_of_dot(a, first + r * ldb, n);
                ahead.ask(n * 4);
            }
        }
        store(y + j, totals(v));
    }
    for (; j < rows; ++j) y[j] = dot(a, b + j * ldb, n);
}

}  // namespace vec_avx512_room

constinit const Vec vec_avx512 QLORA_VEC_OF(vec_avx512_room);

}}  // namespace qlora

QLORA_TARGET_END
#endif
