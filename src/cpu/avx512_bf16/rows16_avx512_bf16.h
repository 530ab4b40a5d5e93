// rows16_avx512_bf16.h - what the products of stored rows and 16-bit integers share: rows side by side, and their
// totals.
#pragma once
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"
#include "src/cpu/vectors.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace rows16_avx512_bf16 {

// of(row, high, m) for all rows, where high, the number of rows side by side, and m are constants: two rows for up to
// two vectors, as many as the registers hold.
template <class Of>
static QLORA_INLINE void for_rows(int64_t rows, int64_t m, const Of& of) {
    int64_t r = 0;
    if (m == 1)
        for (; r + 2 <= rows; r += 2) of(r, 2, 1);
    if (m == 2)
        for (; r + 2 <= rows; r += 2) of(r, 2, 2);
    for (; r < rows; ++r) switch (m) {
        case 1: of(r, 1, 1); break;
        case 2: of(r, 1, 2); break;
        case 3: of(r, 1, 3); break;
        default: of(r, 1, 4);
    }
}

// The totals of two vectors at a time, which share the additions of their halves: `count` of them.
static QLORA_INLINE void put_totals(const int count, const __m512* v, const float times, float* out) {
    QLORA_UNROLL
    for (int i = 0; i < count; i += 2) {
        const __m512 a = v[i], b = i + 1 < count ? v[i + 1] : _mm512_setzero_ps();
        __m512 sum = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
        sum = _mm512_add_ps(sum, _mm512_shuffle_f32x4(sum, sum, 0xb1));
        sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0x4e));
        sum = _mm512_mul_ps(_mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1)), _mm512_set1_ps(times));
        _mm_store_ss(out + i, _mm512_castps512_ps128(sum));
        if (i + 1 < count) _mm_store_ss(out + i + 1, _mm512_extractf32x4_ps(sum, 2));
    }
}

// What a register has of two rows, each in one half: added to their sums.
static QLORA_INLINE void add_halves(const int high, __m512 both, __m512& first, __m512& second) {
    first = _mm512_add_ps(first, _mm512_zextps256_ps512(_mm512_castps512_ps256(both)));
    if (high == 2) second = _mm512_add_ps(second, _mm512_zextps256_ps512(_mm512_extractf32x8_ps(both, 1)));
}

}  // namespace rows16_avx512_bf16
}}  // namespace qlora

QLORA_TARGET_END
#endif
