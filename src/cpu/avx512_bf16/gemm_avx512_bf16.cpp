// gemm_avx512_bf16.cpp - the register tiles of bf16: those of AVX-512, with another step.
//
// The instruction multiplies two pairs and adds both products to an f32 sum, so one step of it covers two steps of
// depth.
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"
#include "src/cpu/avx512_bf16/pack_avx512_bf16.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_avx512_bf16_room {

using namespace gemm_tiles_avx512;
using Packed = int32_t;                                // two of bf16

static QLORA_INLINE void tile_of(const int height, const int wide, const Packed* a, const Packed* b, int64_t depth,
                                 float* c, int64_t ldc, int64_t rows, int64_t cols, float alpha, float beta) {
    __m512 sums[tall][2];
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    prefetch(c, ldc, rows);
    for (int64_t d = 0; d < depth; d += 2, a += tall, b += 32) {
        const __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + 16);
        QLORA_UNROLL
        for (int r = 0; r < height; ++r) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32(a[r]);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], x, b0);
            if (wide > 1) sums[r][1] = _mm512_dpbf16_ps(sums[r][1], x, b1);
        }
    }
    put_all(height, wide, sums, c, ldc, rows, cols, alpha, beta);
}

#include "src/cpu/avx512/gemm_tile_avx512.inl"

}  // namespace gemm_avx512_bf16_room

constinit const GemmKernels gemm_avx512_bf16{.rows = 12,
                                             .cols = 32,
                                             .granule = 2,
                                             .bytes = 2,
                                             .stretch = 512,
                                             .left_across = pack_avx512_bf16::across<2>,
                                             .left_along = pack_avx512_bf16::along<2>,
                                             .right_across = pack_avx512_bf16::across<2>,
                                             .right_along = pack_avx512_bf16::along<2>,
                                             .tile = gemm_avx512_bf16_room::tile};

}}  // namespace qlora

QLORA_TARGET_END
#endif
