// bits_avx512_bf16.h - bits out of the middle of bytes: one instruction multiplies each byte by a matrix of bits
// (GFNI), where a shift, a mask and another shift would be three.
#pragma once
#include "src/cpu/vectors.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace bits_avx512_bf16 {

// The last row of a matrix makes the lowest bit.
static QLORA_INLINE constexpr int64_t matrix_of(const int from, const int count, const int to) {
    uint64_t rows = 0;
    QLORA_UNROLL
    for (int i = 0; i < count; ++i) rows |= (uint64_t(1) << (from + i)) << 8 * (7 - to - i);
    return int64_t(rows);
}

// Of each byte `count` bits from bit `from` on, of the last half of the bytes from `apart` bits above it, moved to bit
// `to`; and the bits of `more`. All are constants wherever this is inlined.
template <int more = 0>
static QLORA_INLINE __m512i bits_at(__m512i bytes, const int from, const int count, const int to = 0,
                                    const int apart = 0) {
    const int64_t a = matrix_of(from, count, to), b = matrix_of(from + apart, count, to);
    return _mm512_gf2p8affine_epi64_epi8(bytes, _mm512_setr_epi64(a, a, a, a, b, b, b, b), more);
}

}  // namespace bits_avx512_bf16
}}  // namespace qlora

QLORA_TARGET_END
#endif
