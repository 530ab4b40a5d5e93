// pack_avx512_bf16.h - packing of floats as pairs of bf16, packed[depth / 2][width][2], for all that multiplies such.
//
// Where depth is padded to more than pairs, `granule` says to what; it is at most 32. Where there are two `parts`, each
// 32 of depth come twice: what bf16 holds of the floats, then what it holds of the rest of them.
#pragma once
#include "src/cpu/avx512/gemm_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace pack_avx512_bf16 {

using gemm_tiles_avx512::first_lanes;

// x less what bf16 holds of it: 0 where that is no number.
static QLORA_INLINE __m512 rest_of(__m512 x) {
    const __m512i held = _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)), 16);
    const __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(held));
    constexpr int no_number = 0x99;                    // NaN, infinities
    return _mm512_maskz_mov_ps(_mm512_knot(_mm512_fpclass_ps_mask(rest, no_number)), rest);
}

static QLORA_INLINE __m512 part_of(const int part, const float* from, __mmask16 there) {
    const __m512 x = _mm512_maskz_loadu_ps(there, from);
    return part ? rest_of(x) : x;
}

// 32 floats, of which only the first `there` are read and the others are 0.
static QLORA_INLINE __m512i narrowed(const int part, const float* from, int64_t there) {
    const __m512 first = part_of(part, from, first_lanes(there)),
                 second = part_of(part, from + 16, first_lanes(there - 16));
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

static QLORA_INLINE __m512i widened(const int part, const float* from, __mmask16 there) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(part_of(part, from, there)));
}

// Of 16 lines that lie along depth, two neighbours in depth each; there may be only the first of them, or none.
static QLORA_INLINE __m512i pair_along(const int part, const float* from, int64_t ld, int64_t deep, __mmask16 lines) {
    const __m512i even = deep > 0 ? widened(part, from, lines) : _mm512_setzero_si512();
    const __m512i odd = deep > 1 ? widened(part, from + ld, lines) : _mm512_setzero_si512();
    return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}

template <int64_t granule, int parts = 1>
static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t d = 0; d < depth; d += 32) {
        QLORA_UNROLL
        for (int part = 0; part < parts; ++part, out += 16 * width) {
            for (int64_t l = 0; l < width; l += 16) {
                __m512i r[16];
                QLORA_UNROLL
                for (int i = 0; i < 16; ++i) {
                    const int64_t deep = l + i < lines ? depth - d : 0;
                    r[i] = narrowed(part, source + (deep ? (l + i) * ld : 0) + d, deep);
                }
                gemm_tiles_avx512::transpose(r);
                gemm_tiles_avx512::store_transposed(r, (depth - d + granule - 1) / granule * (granule / 2),
                                                    first_lanes(width - l), width, out + l);
            }
        }
    }
}

template <int64_t granule, int parts = 1>
static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    const int64_t padded = (depth + granule - 1) / granule * granule;
    for (int64_t step = 0; step < padded; step += 32) {
        QLORA_UNROLL
        for (int part = 0; part < parts; ++part) {
            for (int64_t d = step; d < std::min(padded, step + 32); d += 2, out += width) {
                for (int64_t l = 0; l < width; l += 16)
                    _mm512_mask_storeu_epi32(
                        out + l, first_lanes(width - l),
                        pair_along(part, source + d * ld + l, ld, depth - d, first_lanes(lines - l)));
            }
        }
    }
}

}  // namespace pack_avx512_bf16
}}  // namespace qlora

QLORA_TARGET_END
#endif
