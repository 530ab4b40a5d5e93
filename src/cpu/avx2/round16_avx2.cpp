// round16_avx2.cpp - x as 16-bit integers for the products of AVX2: as words, or for products of bytes as two bytes,
// v = 256 high + low, both signed.
//
// Where they lie (Order16):
//     words     of each 32 the even elements, then the odd ones
//     pairs     of each 64 even elements 0..14 and 32..46, 16..30 and 48..62, then the odd ones in the same way
//     blocks    bytes of two groups of 32 that are multiplied side by side, a half of the register each: the high bytes
//               of elements 0..15 of both, those of 16..31, then the low bytes in the same way
//     integers  the same
//     sixteens  of each 32 the high bytes, then the low ones; and sums of 16, of the first halves of all groups before
//               those of the second ones
#include "src/cpu/avx2/kernels_avx2.h"

#include <bit>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace round16_avx2_room {

// Of absolute values as integers, among which a NaN is the largest and an infinity comes next.
static QLORA_INLINE float largest(const float* x, const int64_t count) {
    const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int64_t i = 0; i < count; i += 16)
        for (int k = 0; k < 2; ++k)
            most[k] = _mm256_max_epi32(
                most[k], _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + i + 8 * k)), no_sign));
    const __m256i both = _mm256_max_epi32(most[0], most[1]);
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return std::bit_cast<float>(_mm_cvtsi128_si32(m));
}

// ---- A group of 32.
struct Group { __m256i of[4]; };                       // eight integers each

static QLORA_INLINE Group rounded(const float* x, __m256 by) {
    Group g;
    QLORA_UNROLL
    for (int i = 0; i < 4; ++i) g.of[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i * 8), by));
    return g;
}

struct EvenOdd { __m256i even, odd; };                 // 16 words each

static QLORA_INLINE EvenOdd words(const Group& g) {
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i part[2];
    QLORA_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
        __m256i two[2];
        QLORA_UNROLL
        for (int k = 0; k < 2; ++k) {
            const __m256 a = _mm256_castsi256_ps(g.of[2 * k]), b = _mm256_castsi256_ps(g.of[2 * k + 1]);
            two[k] = _mm256_castps_si256(odd ? _mm256_shuffle_ps(a, b, 0xDD) : _mm256_shuffle_ps(a, b, 0x88));
        }
        part[odd] = _mm256_permutevar8x32_epi32(_mm256_packs_epi32(two[0], two[1]), in_order);
    }
    return {part[0], part[1]};
}

struct Bytes { __m256i high, low; };

static QLORA_INLINE Bytes bytes(const Group& g) {
    __m256i high[2], low[2];
    QLORA_UNROLL
    for (int k = 0; k < 2; ++k) {
        const __m256i v = _mm256_packs_epi32(g.of[2 * k], g.of[2 * k + 1]);
        high[k] = _mm256_srai_epi16(_mm256_add_epi16(v, _mm256_set1_epi16(128)), 8);
        low[k] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
    }
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return {_mm256_permutevar8x32_epi32(_mm256_packs_epi16(high[0], high[1]), in_order),
            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low[0], low[1]), in_order)};
}

// Of elements 0 to 15, and of 16 to 31: an instruction sums eight unsigned bytes.
struct Two { int32_t first, last; };
static QLORA_INLINE Two sums_of_bytes(__m256i v) {
    const __m256i eight = _mm256_sad_epu8(_mm256_xor_si256(v, _mm256_set1_epi8(char(0x80))), _mm256_setzero_si256());
    const __m256i sixteen = _mm256_add_epi64(eight, _mm256_unpackhi_epi64(eight, eight));
    return {_mm256_cvtsi256_si32(sixteen) - 16 * 128,
            _mm_cvtsi128_si32(_mm256_extracti128_si256(sixteen, 1)) - 16 * 128};
}

// ---- Where a group goes.
static QLORA_INLINE void put(__m256i v, int16_t* to) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), v); }
static QLORA_INLINE void put_halves(__m256i v, uint8_t* to) {
    _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(v));
    _mm_store_si128(reinterpret_cast<__m128i*>(to + 32), _mm256_extracti128_si256(v, 1));
}

template <Order16 order>
static QLORA_INLINE void put_group(const Group& g, float scale, const int64_t group, Run16& run) {
    if constexpr (order == Order16::words) {
        const EvenOdd v = words(g);
        put(v.even, run.values + group * 32);
        put(v.odd, run.values + group * 32 + 16);
        return;
    }
    const Bytes v = bytes(g);
    const Two high = sums_of_bytes(v.high), low = sums_of_bytes(v.low);
    const float first = scale * float(256 * high.first + low.first), last = scale * float(256 * high.last + low.last);
    if constexpr (order == Order16::sixteens) {
        put(v.high, run.values + group * 32);
        put(v.low, run.values + group * 32 + 16);
        run.sums[group] = first;
        run.sums[8 + group] = last;
        run.minus_high[group] = int16_t(-high.first);
        run.minus_high[8 + group] = int16_t(-high.last);
        run.minus_low[group] = int16_t(-low.first);
        run.minus_low[8 + group] = int16_t(-low.last);
        return;
    }
    uint8_t* to = reinterpret_cast<uint8_t*>(run.values) + group / 2 * 128 + group % 2 * 16;
    put_halves(v.high, to);
    put_halves(v.low, to + 64);
    // products of blocks have the scales of all first groups in one half of a register, of second ones in the other
    run.sums32[order == Order16::blocks ? group / 2 + group % 2 * 4 : group] = first + last;
}

static QLORA_INLINE void put_pair(const Group& first, const Group& second, int16_t* to) {
    const EvenOdd a = words(first), b = words(second);
    put(_mm256_permute2x128_si256(a.even, b.even, 0x20), to);
    put(_mm256_permute2x128_si256(a.even, b.even, 0x31), to + 16);
    put(_mm256_permute2x128_si256(a.odd, b.odd, 0x20), to + 32);
    put(_mm256_permute2x128_si256(a.odd, b.odd, 0x31), to + 48);
}

template <Order16 order>
static void round_all(const float* x, int64_t cols, Run16* to) {
    constexpr int64_t share = order == Order16::integers || order == Order16::sixteens ? 256
                              : order == Order16::pairs                              ? 64
                                                                                     : 32;     // have one scale
    if (cols % 256) to[cols / 256] = {};
    for (int64_t i = 0; i < cols; i += share) {
        Run16& run = to[i / 256];
        const float most = largest(x + i, share), infinity = __builtin_inff();
        const float scale = most < infinity ? most < 1e-30f ? 0 : most / most16 : __builtin_nanf("");
        const __m256 by = _mm256_set1_ps(scale > 0 ? most16 / most : 0);
        Group before;
        for (int64_t k = i; k < i + share; k += 32) {
            const int64_t group = k % 256 / 32;
            const Group g = rounded(x + k, by);
            run.scales[group] = scale;
            if constexpr (order != Order16::pairs) put_group<order>(g, scale, group, run);
            else if (group % 2) put_pair(before, g, run.values + (group - 1) * 32);
            else before = g;
        }
    }
}

}  // namespace round16_avx2_room

void round16_avx2(const float* x, int64_t cols, Order16 order, Run16* to) {
    using namespace round16_avx2_room;
    switch (order) {
        case Order16::blocks: return round_all<Order16::blocks>(x, cols, to);
        case Order16::pairs: return round_all<Order16::pairs>(x, cols, to);
        case Order16::integers: return round_all<Order16::integers>(x, cols, to);
        case Order16::sixteens: return round_all<Order16::sixteens>(x, cols, to);
        case Order16::words: return round_all<Order16::words>(x, cols, to);
    }
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
