// codes_avx2.h - small codes to floats with AVX2: what the products and decoders of stored types are made of.
//
// 32 codes lie "dealt out" in a register: bytes 4k to 4k + 3 of its lower half are codes 8k to 8k + 3, those of its
// upper half codes 8k + 4 to 8k + 7. The instructions that widen bytes work within halves, and so bring eight codes in
// order into one vector.
#pragma once
#include "src/cpu/avx2/kernels_avx2.h"

#include <bit>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace codes_avx2 {

struct Four { __m256 of[4]; };                         // 32 numbers in order

static QLORA_INLINE uint32_t word32(const uint8_t* p) {
    uint32_t w;
    __builtin_memcpy(&w, p, 4);
    return w;
}
static QLORA_INLINE uint64_t word64(const uint8_t* p) {
    uint64_t w;
    __builtin_memcpy(&w, p, 8);
    return w;
}
static QLORA_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
static QLORA_INLINE __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static QLORA_INLINE __m256i halves16(const uint8_t* low, const uint8_t* high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(low)), load16(high), 1);
}
static QLORA_INLINE __m256i twice16(const uint8_t* p) { return _mm256_broadcastsi128_si256(load16(p)); }

// A half in all lanes; its negative; and 2^-24 or 2^-28 times it, which is exact: the least half is 2^-24.
static QLORA_INLINE __m256 half8(const uint8_t* p) {
    int16_t h;
    __builtin_memcpy(&h, p, 2);
    return _mm256_cvtph_ps(_mm_set1_epi16(h));
}
static QLORA_INLINE __m256 negative(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
static QLORA_INLINE __m256 lowered(__m256 v, const float by = 0x1p-24f) { return _mm256_mul_ps(v, _mm256_set1_ps(by)); }
static QLORA_INLINE float half_power_of_2(uint8_t e) {
    return std::bit_cast<float>(e < 2 ? uint32_t(0x200000) << e : uint32_t(e - 1) << 23);
}    // 2^(e - 128)

static QLORA_INLINE float total(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// of(row, high, m) for all rows, where high, the number of rows side by side, and m are constants: two rows at a time
// for one vector, which they share while each hides the other's waits, else one.
template <class Of>
static QLORA_INLINE void for_rows(int64_t rows, int64_t m, const Of& of) {
    int64_t r = 0;
    if (m == 1)
        for (; r + 2 <= rows; r += 2) of(r, 2, 1);
    for (; r < rows; ++r) switch (m) {
        case 1: of(r, 1, 1); break;
        case 2: of(r, 1, 2); break;
        case 3: of(r, 1, 3); break;
        default: of(r, 1, 4);
    }
}

// ---- Dealing out.
// 32 bytes in order.
static QLORA_INLINE __m256i dealt_bytes(const uint8_t* p) {
    return _mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                                       _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

// 16 bytes whose low nibbles come first.
static QLORA_INLINE __m256i dealt_nibbles(const uint8_t* p) {
    const __m256i places = _mm256_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14,
                                            15, 4, 5, 6, 7, 12, 13, 14, 15);
    const __m256i shifted =
        _mm256_srlv_epi32(_mm256_shuffle_epi8(twice16(p), places), _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4));
    return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

// 16 bytes of pairs, high nibble first. Each byte comes twice, and keeps one nibble in either place.
static QLORA_INLINE __m256i dealt_pairs(const uint8_t* p) {
    const __m256i places = _mm256_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13, 2, 2, 3, 3, 6, 6, 7, 7,
                                            10, 10, 11, 11, 14, 14, 15, 15);
    const __m256i both = _mm256_shuffle_epi8(twice16(p), places);
    return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(both, 4), _mm256_set1_epi16(0x000F)),
                           _mm256_and_si256(both, _mm256_set1_epi16(0x0F00)));
}

// ---- Parts of dealt bytes.
static QLORA_INLINE __m256i nibbles(__m256i v, const int high) {
    return _mm256_and_si256(high ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
}

// The bits of each byte that begin at `from`, moved to `to`, where `mask` keeps them.
static QLORA_INLINE __m256i bits(__m256i v, const int from, const int to, const int mask) {
    return _mm256_and_si256(from > to   ? _mm256_srli_epi16(v, from - to)
                            : from < to ? _mm256_slli_epi16(v, to - from)
                                        : v,
                            _mm256_set1_epi8(char(mask)));
}

// 32 bits, one a code: FF where the bit is (is not) set, cut to `value`.
static QLORA_INLINE __m256i bit_of_each(const uint8_t* p, const bool dealt) {
    const __m256i dealt_places = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 0, 0, 0, 0, 1, 1, 1,
                                                  1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m256i places = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                            3, 3, 3, 3, 3, 3, 3);
    return _mm256_shuffle_epi8(_mm256_set1_epi32(int(word32(p))), dealt ? dealt_places : places);
}
static QLORA_INLINE __m256i bit_masks(const bool dealt) {
    const int low = 0x08040201, high = int(0x80402010);
    return dealt ? _mm256_setr_epi32(low, low, low, low, high, high, high, high)
                 : _mm256_setr_epi32(low, high, low, high, low, high, low, high);
}
static QLORA_INLINE __m256i where(const uint8_t* p, const int value, const bool dealt) {
    const __m256i masks = bit_masks(dealt);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bit_of_each(p, dealt), masks), masks),
                            _mm256_set1_epi8(char(value)));
}
static QLORA_INLINE __m256i where_not(const uint8_t* p, const int value) {
    return _mm256_and_si256(
        _mm256_cmpeq_epi8(_mm256_and_si256(bit_of_each(p, true), bit_masks(true)), _mm256_setzero_si256()),
        _mm256_set1_epi8(char(value)));
}

// ---- To floats.
// Eight bytes from place `first` of a half register that comes twice: the low byte, or the top byte, of eight integers.
static QLORA_INLINE __m256i low_bytes(__m256i twice, const int first) {
    const int one = int(0x80808000u) | first;
    return _mm256_shuffle_epi8(twice,
                               _mm256_setr_epi32(one, one + 1, one + 2, one + 3, one + 4, one + 5, one + 6, one + 7));
}
static QLORA_INLINE __m256i top_bytes(__m256i twice, const int first) {
    const int one = first << 24 | 0x808080, step = 1 << 24;
    return _mm256_shuffle_epi8(twice, _mm256_setr_epi32(one, one + step, one + 2 * step, one + 3 * step, one + 4 * step,
                                                        one + 5 * step, one + 6 * step, one + 7 * step));
}

// Codes 8k to 8k + 7, signed bytes, times 2^24: each becomes the top byte of an integer.
static QLORA_INLINE __m256 raised(__m256i codes, const int k) {
    const int top = (4 * k) << 24 | 0x808080;
    const __m256i lanes = _mm256_setr_epi32(top, top + (1 << 24), top + (2 << 24), top + (3 << 24), top,
                                            top + (1 << 24), top + (2 << 24), top + (3 << 24));
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(codes, lanes));
}

// Sixteen bytes whose low nibbles come first, as they are.
static QLORA_INLINE Four plain_nibbles(const uint8_t* p) {
    const __m256i both = twice16(p), a = low_bytes(both, 0), b = low_bytes(both, 8), low = _mm256_set1_epi32(15);
    return {{_mm256_cvtepi32_ps(_mm256_and_si256(a, low)), _mm256_cvtepi32_ps(_mm256_and_si256(b, low)),
             _mm256_cvtepi32_ps(_mm256_srli_epi32(a, 4)), _mm256_cvtepi32_ps(_mm256_srli_epi32(b, 4))}};
}

// The same minus 8, times 2^28: a nibble with its top bit turned is a signed one.
static QLORA_INLINE Four signed_nibbles(const uint8_t* p) {
    const __m256i both = _mm256_xor_si256(twice16(p), _mm256_set1_epi8(char(0x88)));
    const __m256i a = top_bytes(both, 0), b = top_bytes(both, 8), top = _mm256_set1_epi32(int(0xF0000000));
    return {{_mm256_cvtepi32_ps(_mm256_slli_epi32(a, 4)), _mm256_cvtepi32_ps(_mm256_slli_epi32(b, 4)),
             _mm256_cvtepi32_ps(_mm256_and_si256(a, top)), _mm256_cvtepi32_ps(_mm256_and_si256(b, top))}};
}

// Sixteen small integers, whose floats are zero in the lower two bytes: tables of the upper two.
struct Levels {
    alignas(16) uint8_t third[16], top[16];
    constexpr explicit Levels(const int8_t (&levels)[16]) : third(), top() {
        for (int i = 0; i < 16; ++i) {
            const uint32_t bits = std::bit_cast<uint32_t>(float(levels[i]));
            third[i] = uint8_t(bits >> 16);
            top[i] = uint8_t(bits >> 24);
        }
    }
};
constexpr int8_t from_0[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr int8_t from_minus_4[16] = {-4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
constexpr Levels levels_plain(from_0), levels_minus_4(from_minus_4),
    levels_iq4(iq4_curve), levels_e2m1(e2m1_twice);

static QLORA_INLINE Four look_up(const Levels& levels, __m256i codes) {
    const __m256i zero = _mm256_setzero_si256(), third = _mm256_shuffle_epi8(twice16(levels.third), codes),
                  top = _mm256_shuffle_epi8(twice16(levels.top), codes);
    const __m256i low = _mm256_unpacklo_epi8(third, top), high = _mm256_unpackhi_epi8(third, top);
    return {{_mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, low)),
             _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, low)),
             _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, high)),
             _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, high))}};
}

// Any sixteen floats as four tables of bytes.
struct BytePlanes { __m256i of[4]; };

static QLORA_INLINE BytePlanes planes_of(const float* codebook) {
    BytePlanes planes;
    QLORA_UNROLL
    for (int b = 0; b < 4; ++b) {
        uint8_t bytes[16];
        for (int i = 0; i < 16; ++i) bytes[i] = reinterpret_cast<const uint8_t*>(codebook)[4 * i + b];
        planes.of[b] = twice16(bytes);
    }
    return planes;
}

static QLORA_INLINE Four look_up(const BytePlanes& planes, __m256i codes) {
    const __m256i b0 = _mm256_shuffle_epi8(planes.of[0], codes), b1 = _mm256_shuffle_epi8(planes.of[1], codes);
    const __m256i b2 = _mm256_shuffle_epi8(planes.of[2], codes), b3 = _mm256_shuffle_epi8(planes.of[3], codes);
    const __m256i low0 = _mm256_unpacklo_epi8(b0, b1), low1 = _mm256_unpackhi_epi8(b0, b1);
    const __m256i high0 = _mm256_unpacklo_epi8(b2, b3), high1 = _mm256_unpackhi_epi8(b2, b3);
    return {{_mm256_castsi256_ps(_mm256_unpacklo_epi16(low0, high0)),
             _mm256_castsi256_ps(_mm256_unpackhi_epi16(low0, high0)),
             _mm256_castsi256_ps(_mm256_unpacklo_epi16(low1, high1)),
             _mm256_castsi256_ps(_mm256_unpackhi_epi16(low1, high1))}};
}

}  // namespace codes_avx2
}}  // namespace qlora

QLORA_TARGET_END
#endif
