// scaled_codes_avx512_bf16.h - Q2_K and Q3_K: so few codes meet a scale that their products with it are a table of
// bytes, one of sixteen in each quarter of a register. A lookup gives codes that have their scales already, which
// integers16_avx512_bf16.cpp multiplies by bytes of x with nothing in between.
//
// A code of two bits lies at bit 2 * step of a byte of 64, for steps 0 to 3: of these 64 weights the first half is of
// the block's first half, so x comes in this order as well (Order16::sixteens). A quarter of them are 16 that share a
// scale.
#pragma once
#include "src/cpu/avx2/block_codes_avx2.h"
#include "src/cpu/avx512_bf16/bits_avx512_bf16.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace scaled_codes_avx512_bf16 {

using namespace block_codes_avx2;
using bits_avx512_bf16::bits_at;

constexpr bool has_tables(DType type) { return type == DType::q2_k || type == DType::q3_k; }
constexpr int zero_of_q3_k = 127;                      // added to s * (c - 4), which is -124 to 128

// The scale of a quarter at a step, among the sixteen of a block.
constexpr int scale_of(int quarter, int step) { return quarter / 2 * 8 + step * 2 + quarter % 2; }

struct Bytes64 { alignas(64) uint8_t of[64]; };
struct Words32 { alignas(64) uint16_t of[32]; };

// ---- Q2_K: scales of four bits, so s * c is at most 45: {0, s, 2 s, 3 s} for each step.
constexpr uint8_t none = 0x80;                         // a byte that a lookup makes 0
constexpr Bytes64 scales_of_steps = [] {               // as a word, twice, for each step
    Bytes64 b{};
    for (int i = 0; i < 64; ++i) b.of[i] = i % 2 ? none : uint8_t(scale_of(i / 16, i % 16 / 4));
    return b;
}();
constexpr Bytes64 sixteen_bytes = [] {                 // a lane each
    Bytes64 b{};
    for (int i = 0; i < 64; ++i) b.of[i] = i % 4 ? none : uint8_t(i / 4);
    return b;
}();
static QLORA_INLINE __m512i scales_of_q2_k(const uint8_t* p) { return _mm512_broadcast_i32x4(load16(p)); }

// What is subtracted from every weight of 16, in units of the block, a lane each.
static QLORA_INLINE __m512i offsets_of_q2_k(const uint8_t* p) {
    return _mm512_srli_epi32(_mm512_shuffle_epi8(scales_of_q2_k(p), _mm512_load_si512(sixteen_bytes.of)), 4);
}

template <int step>
static QLORA_INLINE __m512i weights_of_step(__m512i table, __m512i codes) {
    return _mm512_shuffle_epi8(table, bits_at<4 * step>(codes, 2 * step, 2));
}
static QLORA_INLINE void weights_of_q2_k(const uint8_t* p, __m512i (&to)[4]) {
    const __m512i scales = _mm512_and_si512(scales_of_q2_k(p), _mm512_set1_epi8(15));
    const __m512i table = _mm512_mullo_epi16(_mm512_shuffle_epi8(scales, _mm512_load_si512(scales_of_steps.of)),
                                             _mm512_set1_epi32(0x03020100));
    const __m512i codes = _mm512_loadu_si512(p + 16);
    to[0] = weights_of_step<0>(table, codes);
    to[1] = weights_of_step<1>(table, codes);
    to[2] = weights_of_step<2>(table, codes);
    to[3] = weights_of_step<3>(table, codes);
}

// ---- Q3_K: a third bit, and scales of -32 to 31: eight bytes for each of two steps. A word of a table is two
// neighbours, s * (c - 4) + 127 and 256 times the next one, which no borrow joins.
constexpr Words32 scales_of_two_steps(int first) {
    Words32 w{};
    for (int i = 0; i < 32; ++i) w.of[i] = uint16_t(scale_of(i / 8, first + i % 8 / 4));
    return w;
}
constexpr Words32 scales_of_first_steps = scales_of_two_steps(0), scales_of_last_steps = scales_of_two_steps(2);
constexpr uint64_t four_words = [] {                   // c - 4 + 256 (c + 1 - 4) for c of 0, 2, 4, 6
    uint64_t words = 0;
    for (int i = 0; i < 4; ++i) words |= uint64_t(uint16_t(2 * i - 4 + 256 * (2 * i - 3))) << 16 * i;
    return words;
}();
static QLORA_INLINE __m512i table_of_q3_k(__m512i scales, const Words32& places) {
    const __m512i s = _mm512_permutexvar_epi16(_mm512_load_si512(places.of), scales);
    return _mm512_add_epi16(_mm512_mullo_epi16(s, _mm512_set1_epi64(int64_t(four_words))),
                            _mm512_set1_epi8(zero_of_q3_k));
}
// `third`: bit `step` of each byte, of the last half step + 4, is the third one of its code.
template <int step>
static QLORA_INLINE __m512i weights_of_step(__m512i table, __m512i codes, __m512i third) {
    const __m512i at = _mm512_or_si512(bits_at<step % 2 * 8>(codes, 2 * step, 2), bits_at(third, step, 1, 2, 4));
    return _mm512_shuffle_epi8(table, at);
}
static QLORA_INLINE void weights_of_q3_k(const uint8_t* p, __m512i (&to)[4]) {
    const __m512i scales = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(scales_of_q3_k(p)));
    const __m512i first = table_of_q3_k(scales, scales_of_first_steps),
                  last = table_of_q3_k(scales, scales_of_last_steps);
    const __m512i codes = _mm512_loadu_si512(p + 32);
    const __m512i third = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    to[0] = weights_of_step<0>(first, codes, third);
    to[1] = weights_of_step<1>(first, codes, third);
    to[2] = weights_of_step<2>(last, codes, third);
    to[3] = weights_of_step<3>(last, codes, third);
}

// 256 weights as unsigned bytes, 64 a step, in units of the block.
template <DType type>
static QLORA_INLINE void weights(const uint8_t* p, __m512i (&to)[4]) {
    if constexpr (type == DType::q2_k) weights_of_q2_k(p, to);
    else weights_of_q3_k(p, to);
}

}  // namespace scaled_codes_avx512_bf16
}}  // namespace qlora

QLORA_TARGET_END
#endif
