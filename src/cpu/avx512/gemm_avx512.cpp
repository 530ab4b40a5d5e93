// gemm_avx512.cpp - packing and the register tiles of floats with AVX-512.
#include "src/cpu/avx512/gemm_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_avx512_room {

using namespace gemm_tiles_avx512;
using Packed = float;

static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t l = 0; l < width; l += 16) {
        for (int64_t d = 0; d < depth; d += 16) {
            const __mmask16 inside = first_lanes(depth - d);
            __m512i r[16];
            QLORA_UNROLL
            for (int i = 0; i < 16; ++i)
                r[i] = _mm512_maskz_loadu_epi32(l + i < lines ? inside : __mmask16(0),
                                                source + (l + i < lines ? l + i : 0) * ld + d);
            transpose(r);
            store_transposed(r, depth - d, first_lanes(width - l), width, out + d * width + l);
        }
    }
}

static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    float* out = static_cast<float*>(packed);
    for (int64_t d = 0; d < depth; ++d) {
        for (int64_t l = 0; l < width; l += 16)
            _mm512_mask_storeu_ps(out + d * width + l, first_lanes(width - l),
                                  _mm512_maskz_loadu_ps(first_lanes(lines - l), source + d * ld + l));
    }
}

// height and wide (vectors of 16 columns) are constants wherever this is inlined; the sums are the same for all of
// them.
static QLORA_INLINE void tile_of(const int height, const int wide, const float* a, const float* b, int64_t depth,
                                 float* c, int64_t ldc, int64_t rows, int64_t cols, float alpha, float beta) {
    __m512 sums[tall][2];
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    prefetch(c, ldc, rows);
    for (int64_t d = 0; d < depth; ++d, a += tall, b += 32) {
        const __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);
        QLORA_UNROLL
        for (int r = 0; r < height; ++r) {
            const __m512 x = _mm512_set1_ps(a[r]);
            sums[r][0] = _mm512_fmadd_ps(x, b0, sums[r][0]);
            if (wide > 1) sums[r][1] = _mm512_fmadd_ps(x, b1, sums[r][1]);
        }
    }
    put_all(height, wide, sums, c, ldc, rows, cols, alpha, beta);
}

#include "src/cpu/avx512/gemm_tile_avx512.inl"

}  // namespace gemm_avx512_room

constinit const GemmKernels gemm_avx512{.rows = 12,
                                        .cols = 32,
                                        .granule = 1,
                                        .bytes = 4,
                                        .stretch = 512,
                                        .left_across = gemm_avx512_room::across,
                                        .left_along = gemm_avx512_room::along,
                                        .right_across = gemm_avx512_room::across,
                                        .right_along = gemm_avx512_room::along,
                                        .tile = gemm_avx512_room::tile};

}}  // namespace qlora

QLORA_TARGET_END
#endif
