// pack_avx512_bf16.h - packing of floats as pairs of bf16, packed[depth / 2][width][2], for all that multiplies such.
//
// Where depth is padded to more than pairs, `granule` says to what; it is at most 32.
#pragma once
#include "src/cpu/avx512/gemm_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace pack_avx512_bf16 {

using gemm_tiles_avx512::first_lanes;

// 32 floats, of which only the first `there` are read and the others are 0.
static QLORA_INLINE __m512i narrowed(const float* from, int64_t there) {
    const __m512 first = _mm512_maskz_loadu_ps(first_lanes(there), from),
                 second = _mm512_maskz_loadu_ps(first_lanes(there - 16), from + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

static QLORA_INLINE __m512i widened(const float* from, __mmask16 there) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(there, from)));
}

// Of 16 lines that lie along depth, two neighbours in depth each; there may be only the first of them, or none.
static QLORA_INLINE __m512i pair_along(const float* from, int64_t ld, int64_t deep, __mmask16 lines) {
    const __m512i even = deep > 0 ? widened(from, lines) : _mm512_setzero_si512();
    const __m512i odd = deep > 1 ? widened(from + ld, lines) : _mm512_setzero_si512();
    return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}

template <int64_t granule>
static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t l = 0; l < width; l += 16) {
        for (int64_t d = 0; d < depth; d += 32) {
            __m512i r[16];
            QLORA_UNROLL
            for (int i = 0; i < 16; ++i) {
                const bool there = l + i < lines;
                r[i] = narrowed(source + (there ? l + i : 0) * ld + d, there ? depth - d : 0);
            }
            gemm_tiles_avx512::transpose(r);
            gemm_tiles_avx512::store_transposed(r, (depth - d + granule - 1) / granule * (granule / 2),
                                                first_lanes(width - l), width, out + d / 2 * width + l);
        }
    }
}

template <int64_t granule>
static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t d = 0; d < (depth + granule - 1) / granule * granule; d += 2) {
        for (int64_t l = 0; l < width; l += 16)
            _mm512_mask_storeu_epi32(out + d / 2 * width + l, first_lanes(width - l),
                                     pair_along(source + d * ld + l, ld, depth - d, first_lanes(lines - l)));
    }
}

}  // namespace pack_avx512_bf16
}}  // namespace qlora

QLORA_TARGET_END
#endif
