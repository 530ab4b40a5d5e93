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
        const Lanes lanes = first_lanes(n - i);
        s0 = _mm512_fmadd_ps(load(a + i, lanes), load(b + i, lanes), s0);
    }
    return total(together(s0, s1, s2, s3));
}

static void dots(const float* a, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) y[j] = dot(a, b + j * ldb, n);
}

}  // namespace vec_avx512_room

constinit const Vec vec_avx512 QLORA_VEC_OF(vec_avx512_room);

}}  // namespace qlora

QLORA_TARGET_END
#endif
