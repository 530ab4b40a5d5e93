// scales_avx512_bf16.h - scales that were quantized again, 64 at a time: an instruction (VBMI) looks 64 bytes up among
// 128, so the four bytes of the map's floats are four tables of 256, and their results are put together again.
#pragma once
#include "src/cpu/vectors.h"
#include "src/tensor/weight.h"

#include <algorithm>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace scales_avx512_bf16 {
// Of a map: once for as many scales as one likes.
struct Planes { __m512i of[4][4]; };                   // byte b of entries 64 i and on: of[b][i]

static QLORA_INLINE void read(const float* map, Planes& to) {
    alignas(64) uint8_t places[64];
    for (int b = 0; b < 4; ++b) {
        for (int i = 0; i < 32; ++i) places[i] = places[32 + i] = uint8_t(4 * i + b);
        const __m512i at = _mm512_load_si512(places);
        QLORA_UNROLL
        for (int i = 0; i < 4; ++i) {
            const float* from = map + 64 * i;
            const __m512i low = _mm512_permutex2var_epi8(_mm512_loadu_si512(from), at, _mm512_loadu_si512(from + 16)),
                          high = _mm512_permutex2var_epi8(_mm512_loadu_si512(from + 32), at,
                                                          _mm512_loadu_si512(from + 48));
            to.of[b][i] = _mm512_mask_blend_epi64(0xf0, low, high);
        }
    }
}

static QLORA_INLINE __mmask16 first_lanes(int64_t n) {
    return n >= 16 ? __mmask16(0xffff) : n > 0 ? __mmask16((1u << n) - 1) : __mmask16(0);
}

// scales = map[code] * by + offset, rounded twice like FourBit::scale(): the intrinsic with a rounding mode keeps the
// compiler from fusing the two.
static QLORA_INLINE void look_up(const Planes& planes, const uint8_t* codes, int64_t count, float by, float offset,
                                 float* scales) {
    const __mmask64 there = count >= 64 ? ~__mmask64(0) : (__mmask64(1) << count) - 1;
    // the unpacking below takes four neighbours from each quarter
    const __m512i code = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), _mm512_maskz_loadu_epi8(there, codes));
    const __mmask64 upper = _mm512_movepi8_mask(code);
    __m512i byte[4];
    QLORA_UNROLL
    for (int b = 0; b < 4; ++b)
        byte[b] = _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(planes.of[b][0], code, planes.of[b][1]),
                                         _mm512_permutex2var_epi8(planes.of[b][2], code, planes.of[b][3]));
    const __m512i low[2] = {_mm512_unpacklo_epi8(byte[0], byte[1]), _mm512_unpackhi_epi8(byte[0], byte[1])},
                  high[2] = {_mm512_unpacklo_epi8(byte[2], byte[3]), _mm512_unpackhi_epi8(byte[2], byte[3])};
    QLORA_UNROLL
    for (int i = 0; i < 4; ++i) {
        const __m512i bits = i % 2 ? _mm512_unpackhi_epi16(low[i / 2], high[i / 2])
                                   : _mm512_unpacklo_epi16(low[i / 2], high[i / 2]);
        const __m512 product = _mm512_mul_round_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(by),
                                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm512_mask_storeu_ps(scales + 16 * i, first_lanes(count - 16 * i),
                              _mm512_add_ps(product, _mm512_set1_ps(offset)));
    }
}

// Of blocks [first, first + count).
static QLORA_INLINE void look_up(const Planes& planes, const FourBit& quant, int64_t first, int64_t count,
                                 float* scales) {
    while (count > 0) {
        const int64_t group = first / quant.block2,
                      some = std::min({int64_t(64), count, (group + 1) * quant.block2 - first});
        look_up(planes, quant.absmax_code + first, some, quant.absmax2[group], quant.offset, scales);
        first += some;
        count -= some;
        scales += some;
    }
}

}  // namespace scales_avx512_bf16
}}  // namespace qlora

QLORA_TARGET_END
#endif
