// gemm_avx512_bf16.cpp - packing and the register tiles of bf16: those of AVX-512, with another step.
//
// The instruction multiplies two pairs and adds both products to an f32 sum, so one step of it covers two steps of
// depth.
#include "src/cpu/avx512/gemm_avx512.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_avx512_bf16_room {

using namespace gemm_tiles_avx512;
using Packed = int32_t;                                // two of bf16

static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t l = 0; l < width; l += 16) {
        for (int64_t d = 0; d < depth; d += 32) {
            const __mmask16 low = first_lanes(depth - d), high = first_lanes(depth - d - 16);
            __m512i r[16];
            QLORA_UNROLL
            for (int i = 0; i < 16; ++i) {
                const bool there = l + i < lines;
                const float* row = source + (there ? l + i : 0) * ld + d;
                const __m512 first = _mm512_maskz_loadu_ps(there ? low : __mmask16(0), row),
                             second = _mm512_maskz_loadu_ps(there ? high : __mmask16(0), row + 16);
                r[i] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
            }
            transpose(r);
            store_transposed(r, (depth - d + 1) / 2, first_lanes(width - l), width,
                                               out + d / 2 * width + l);
        }
    }
}

static QLORA_INLINE __m512i widened(const float* source, __mmask16 inside) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, source)));
}

static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t d = 0; d < depth; d += 2) {
        for (int64_t l = 0; l < width; l += 16) {
            const __mmask16 inside = first_lanes(lines - l);
            const __m512i even = widened(source + d * ld + l, inside);
            const __m512i odd = d + 1 < depth ? widened(source + (d + 1) * ld + l, inside) : _mm512_setzero_si512();
            _mm512_mask_storeu_epi32(out + d / 2 * width + l, first_lanes(width - l),
                                     _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
    }
}

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

constinit const GemmKernels gemm_avx512_bf16{
    12, 32, 2, 2, gemm_avx512_bf16_room::across, gemm_avx512_bf16_room::along, gemm_avx512_bf16_room::tile};

}}  // namespace qlora

QLORA_TARGET_END
#endif
