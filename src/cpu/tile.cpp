// tile.cpp - the transpose that goes with tiles, the same for all instruction sets of a processor.
#include "src/cpu/tile.h"
#include "src/cpu/vectors.h"

namespace qlora { inline namespace QLORA_ABI {

void transpose(const float* from, int64_t ld, int64_t rows, int64_t cols, float* to, int64_t ldto) {
    int64_t i = 0;
#if defined(__x86_64__)
    for (; i + 4 <= rows; i += 4) {
        int64_t j = 0;
        for (; j + 4 <= cols; j += 4) {
            const float* f = from + i * ld + j;
            __m128 a = _mm_loadu_ps(f), b = _mm_loadu_ps(f + ld), c = _mm_loadu_ps(f + 2 * ld),
                   d = _mm_loadu_ps(f + 3 * ld);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            float* t = to + j * ldto + i;
            _mm_storeu_ps(t, a);
            _mm_storeu_ps(t + ldto, b);
            _mm_storeu_ps(t + 2 * ldto, c);
            _mm_storeu_ps(t + 3 * ldto, d);
        }
        for (; j < cols; ++j)
            for (int64_t r = 0; r < 4; ++r) to[j * ldto + i + r] = from[(i + r) * ld + j];
    }
#endif
    for (; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) to[j * ldto + i] = from[i * ld + j];
}

}}  // namespace qlora
