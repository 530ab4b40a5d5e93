// block_codes_avx2.h - the codes and the scales in the block types of GGUF files, with AVX2: 32 codes of a block in a
// register.
//
// src/tensor/blocks.cpp says what the bytes mean. A weight is scale * (code - zero) + offset; the decoders to floats
// take codes dealt out (codes_avx2.h), whose zero is 0, the products with integers take them in order.
#pragma once
#include "src/cpu/avx2/codes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace block_codes_avx2 {

using namespace codes_avx2;

constexpr int64_t elements_of(DType type) {
    switch (type) {
        case DType::q2_k:
        case DType::q3_k:
        case DType::q4_k:
        case DType::q5_k:
        case DType::q6_k:
        case DType::iq4_xs: return 256;
        default: return 32;
    }
}
constexpr int64_t bytes_of(DType type) {
    switch (type) {
        case DType::q4_1: return 20;
        case DType::q5_0: return 22;
        case DType::q5_1: return 24;
        case DType::q8_0: return 34;
        case DType::q2_k: return 84;
        case DType::q3_k: return 110;
        case DType::q4_k: return 144;
        case DType::q5_k: return 176;
        case DType::q6_k: return 210;
        case DType::iq4_xs: return 136;
        case DType::mxfp4: return 17;
        default: return 18;
    }
}
constexpr bool has_offset(DType type) {
    return type == DType::q4_1 || type == DType::q5_1 || type == DType::q2_k || type == DType::q4_k ||
           type == DType::q5_k;
}
constexpr bool has_halves(DType type) {                // sixteen weights share a scale, not 32
    return type == DType::q2_k || type == DType::q3_k || type == DType::q6_k;
}

// x as dots16.h has it.
static QLORA_INLINE __m256i load_values(const int16_t* v) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(v));
}

// ---- Codes of group `group` of the block at p.
static QLORA_INLINE __m256i bytes32(const uint8_t* p, const bool dealt) {
    return dealt ? dealt_bytes(p) : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
static QLORA_INLINE __m256i nibbles32(const uint8_t* p, const bool dealt) {
    if (dealt) return dealt_nibbles(p);
    return _mm256_and_si256(_mm256_srlv_epi32(twice16(p), _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)),
                            _mm256_set1_epi8(15));
}

static QLORA_INLINE __m256i codes_of(const DType type, const uint8_t* p, const int group, const bool dealt) {
    if (type == DType::q4_0 || type == DType::iq4_nl) return nibbles32(p + 2, dealt);
    if (type == DType::mxfp4) return nibbles32(p + 1, dealt);
    if (type == DType::q4_1) return nibbles32(p + 4, dealt);
    if (type == DType::q5_0 && dealt)
        // minus 16 where the fifth bit is not set
        return _mm256_or_si256(nibbles32(p + 6, true), where_not(p + 2, 0xF0));
    if (type == DType::q5_0) return _mm256_or_si256(nibbles32(p + 6, false), where(p + 2, 0x10, false));
    if (type == DType::q5_1) return _mm256_or_si256(nibbles32(p + 8, dealt), where(p + 4, 0x10, dealt));
    if (type == DType::q8_0) return bytes32(p + 2, dealt);
    if (type == DType::q4_k) return nibbles(bytes32(p + 16 + group / 2 * 32, dealt), group & 1);
    if (type == DType::iq4_xs) return nibbles32(p + 8 + group * 16, dealt);
    if (type == DType::q2_k) return bits(bytes32(p + 16 + group / 4 * 32, dealt), group % 4 * 2, 0, 3);
    if (type == DType::q3_k)
        return _mm256_or_si256(bits(bytes32(p + 32 + group / 4 * 32, dealt), group % 4 * 2, 0, 3),
                               bits(bytes32(p, dealt), group, 2, 4));
    if (type == DType::q5_k)
        return _mm256_or_si256(nibbles(bytes32(p + 48 + group / 2 * 32, dealt), group & 1),
                               bits(bytes32(p + 16, dealt), group, 4, 16));
    const int half = group / 4, run = group % 4;       // q6_k
    const __m256i low = nibbles(bytes32(p + half * 64 + run % 2 * 32, dealt), run / 2);
    const __m256i code = _mm256_or_si256(low, bits(bytes32(p + 128 + half * 32, dealt), run * 2, 4, 0x30));
    return dealt ? _mm256_sub_epi8(code, _mm256_set1_epi8(32)) : code;
}

// ---- The first two, or four, bytes of eight blocks: in order, or those of blocks 0, 2, 4, 6 before the others. One
// load each brings them to where they belong; none reads anything before the first block or behind the last one.
constexpr int place_of(int block, bool apart) { return apart ? block / 2 + block % 2 * 4 : block; }

template <int64_t bytes, bool apart, int block>
static QLORA_INLINE __m128i with_word16(__m128i words, const uint8_t* p) {
    constexpr int place = place_of(block, apart);
    return _mm_blend_epi16(words, load16(p + block * bytes - 2 * place), 1 << place);
}
template <int64_t bytes, bool apart>
static QLORA_INLINE __m128i first_words16(const uint8_t* p) {
    const __m128i two = with_word16<bytes, apart, 1>(load16(p), p);
    const __m128i four = with_word16<bytes, apart, 3>(with_word16<bytes, apart, 2>(two, p), p);
    const __m128i six = with_word16<bytes, apart, 5>(with_word16<bytes, apart, 4>(four, p), p);
    return with_word16<bytes, apart, 7>(with_word16<bytes, apart, 6>(six, p), p);
}
template <int64_t bytes, int block>
static QLORA_INLINE __m256i with_word32(__m256i words, const uint8_t* p) {
    constexpr int place = place_of(block, true);
    return _mm256_blend_epi32(words, load32(p + block * bytes - 4 * place), 1 << place);
}
template <int64_t bytes>
static QLORA_INLINE __m256i first_words32(const uint8_t* p) {
    const __m256i two = with_word32<bytes, 1>(load32(p), p);
    const __m256i four = with_word32<bytes, 3>(with_word32<bytes, 2>(two, p), p);
    const __m256i six = with_word32<bytes, 5>(with_word32<bytes, 4>(four, p), p);
    return with_word32<bytes, 7>(with_word32<bytes, 6>(six, p), p);
}

// ---- d of a block of 256 whose scales are integers and, where there is one, the unit of its offsets: two of four
// halves that are read at once.
template <DType type>
struct Units {
    static constexpr bool one = type == DType::q3_k || type == DType::q6_k;    // no offsets, but for what stands for 0
    static constexpr int64_t from = type == DType::q2_k   ? 76
                                    : type == DType::q3_k ? 102
                                    : type == DType::q6_k ? 202
                                                          : 0;
    static constexpr int d = type == DType::q2_k ? 2 : one ? 3 : 0, least = one ? d : d + 1;
    static QLORA_INLINE __m128 of(const uint8_t* p) {
        return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + from)));
    }
};

// ---- Scales of a block of 256: number = scale * code + offset, of groups, or of half groups 0 to 7 and 8 to 15.
struct RunScales { __m256 scale[2], offset[2]; };

static QLORA_INLINE __m256 times8(__m256i numbers, __m256 by) { return _mm256_mul_ps(by, _mm256_cvtepi32_ps(numbers)); }
static QLORA_INLINE void times16(__m128i signed_bytes, __m256 by, __m256 (&to)[2]) {
    to[0] = times8(_mm256_cvtepi8_epi32(signed_bytes), by);
    to[1] = times8(_mm256_cvtepi8_epi32(_mm_srli_si128(signed_bytes, 8)), by);
}

// Of sixteen half groups.
static QLORA_INLINE __m128i scales_of_q3_k(const uint8_t* p) {
    const __m128i low =
        _mm_and_si128(_mm_set_epi64x(int64_t(word64(p + 96) >> 4), int64_t(word64(p + 96))), _mm_set1_epi8(15));
    const __m128i high = _mm_and_si128(
        _mm_srlv_epi32(_mm_set1_epi32(int(word32(p + 104))), _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    return _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16(high, 4)), _mm_set1_epi8(32));
}

// What q4_k_group() says, four bytes at a time; of Q5_K too. Offsets are to be subtracted.
struct ScalesOf8 { uint64_t scales, offsets; };
static QLORA_INLINE ScalesOf8 scales_of_q4_k(const uint8_t* p) {
    const uint32_t a = word32(p + 4), b = word32(p + 8), c = word32(p + 12), six = 0x3F3F3F3F, four = 0x0F0F0F0F,
                   two = 0x03030303;
    return {(a & six) | uint64_t((c & four) | (a >> 6 & two) << 4) << 32,
            (b & six) | uint64_t((c >> 4 & four) | (b >> 6 & two) << 4) << 32};
}

static QLORA_INLINE RunScales scales_of_block(const DType type, const uint8_t* p) {
    RunScales out{};
    if (type == DType::q2_k) {
        const __m128i both = load16(p), low = _mm_set1_epi8(15);
        times16(_mm_and_si128(both, low), half8(p + 80), out.scale);
        times16(_mm_and_si128(_mm_srli_epi16(both, 4), low), negative(half8(p + 82)), out.offset);
    } else if (type == DType::q3_k) {
        times16(scales_of_q3_k(p), half8(p + 108), out.scale);
    } else if (type == DType::q4_k || type == DType::q5_k) {
        const ScalesOf8 of = scales_of_q4_k(p);
        out.scale[0] = times8(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(of.scales))), half8(p));
        out.offset[0] = times8(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(of.offsets))), negative(half8(p + 2)));
    } else if (type == DType::q6_k) {
        times16(load16(p + 192), half8(p + 208), out.scale);
    } else if (type == DType::iq4_xs) {
        const __m256i by_four = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28),
                      by_two = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
        const __m256i low =
            _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(int(word32(p + 4))), by_four), _mm256_set1_epi32(15));
        const __m256i high =
            _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(p[2] | p[3] << 8), by_two), _mm256_set1_epi32(3));
        out.scale[0] = times8(_mm256_sub_epi32(_mm256_or_si256(low, _mm256_slli_epi32(high, 4)), _mm256_set1_epi32(32)),
                              half8(p));
    }
    return out;
}

}  // namespace block_codes_avx2
}}  // namespace qlora

QLORA_TARGET_END
#endif
