// blocks_avx2.cpp - the most used block types of GGUF files to floats with AVX2, the same bits as the decoders of src/tensor/blocks.cpp
// (which say what the bytes mean): each value is a product that is exact or rounds once, and at most one sum.
#include "src/cpu/intrinsics.h"
#include "src/cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace qlora::inline v0_1 {
namespace blocks_avx2_room {

static QLORA_INLINE float half_at(const uint8_t* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}

static QLORA_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
static QLORA_INLINE __m128i low_nibbles(__m128i v) { return _mm_and_si128(v, _mm_set1_epi8(15)); }
static QLORA_INLINE __m128i high_nibbles(__m128i v) { return low_nibbles(_mm_srli_epi16(v, 4)); }

constexpr float none = -0.0f;                         // added to a product, it keeps even the sign of a zero

// out[0..15] = scale * q + offset for 16 signed bytes.
static QLORA_INLINE void put16(__m128i q, float scale, float offset, float* out) {
    const __m256 s = _mm256_set1_ps(scale), o = _mm256_set1_ps(offset);
    _mm256_storeu_ps(out, _mm256_fmadd_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), o));
    _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))), o));
}

static void f16(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(load16(p + 2 * i)));
    for (; i < count; ++i) out[i] = half_at(p + 2 * i);
}

static void q4_0(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 32, p += 18, out += 32) {
        const float d = half_at(p);
        const __m128i q = load16(p + 2), eight = _mm_set1_epi8(8);
        put16(_mm_sub_epi8(low_nibbles(q), eight), d, none, out);
        put16(_mm_sub_epi8(high_nibbles(q), eight), d, none, out + 16);
    }
}

static void q4_1(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 32, p += 20, out += 32) {
        const float d = half_at(p), m = half_at(p + 2);
        const __m128i q = load16(p + 4);
        put16(low_nibbles(q), d, m, out);
        put16(high_nibbles(q), d, m, out + 16);
    }
}

static void q8_0(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 32, p += 34, out += 32) {
        const float d = half_at(p);
        put16(load16(p + 2), d, none, out);
        put16(load16(p + 18), d, none, out + 16);
    }
}

static void q4_k(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 256, p += 144, out += 256) {
        const float d = half_at(p), dmin = half_at(p + 2);
        for (int pair = 0; pair < 4; ++pair) {         // 32 bytes: a group of 32 in the low nibbles, the next in the high ones
            const GroupScale low = q4_k_group(p + 4, 2 * pair), high = q4_k_group(p + 4, 2 * pair + 1);
            const float scale[2] = {d * float(low.scale), d * float(high.scale)}, offset[2] = {-(dmin * float(low.least)), -(dmin * float(high.least))};
            const __m128i q0 = load16(p + 16 + pair * 32), q1 = load16(p + 32 + pair * 32);
            put16(low_nibbles(q0), scale[0], offset[0], out + pair * 64);
            put16(low_nibbles(q1), scale[0], offset[0], out + pair * 64 + 16);
            put16(high_nibbles(q0), scale[1], offset[1], out + pair * 64 + 32);
            put16(high_nibbles(q1), scale[1], offset[1], out + pair * 64 + 48);
        }
    }
}

static void q6_k(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    const __m128i two_bits = _mm_set1_epi8(0x30), bias = _mm_set1_epi8(32);
    for (int64_t i = 0; i < count; i += 256, p += 210, out += 256) {
        const float d = half_at(p + 208);
        for (int part = 0; part < 4; ++part) {         // 16 places of half part / 2, each in four runs of 32
            const int half = part / 2, start = part % 2 * 16;
            const __m128i l0 = load16(p + half * 64 + start), l1 = load16(p + half * 64 + 32 + start), h = load16(p + 128 + half * 32 + start);
            const __m128i runs[4] = {_mm_or_si128(low_nibbles(l0), _mm_and_si128(_mm_slli_epi16(h, 4), two_bits)),
                                     _mm_or_si128(low_nibbles(l1), _mm_and_si128(_mm_slli_epi16(h, 2), two_bits)),
                                     _mm_or_si128(high_nibbles(l0), _mm_and_si128(h, two_bits)),
                                     _mm_or_si128(high_nibbles(l1), _mm_and_si128(_mm_srli_epi16(h, 2), two_bits))};
            for (int run = 0; run < 4; ++run) {
                const float scale = d * float(int8_t(p[192 + half * 8 + run * 2 + part % 2]));
                put16(_mm_sub_epi8(runs[run], bias), scale, none, out + half * 128 + run * 32 + start);
            }
        }
    }
}

}  // namespace blocks_avx2_room

BlockDecoder block_decoder_avx2(DType type) {
    switch (type) {
        case DType::f16: return blocks_avx2_room::f16;
        case DType::q4_0: return blocks_avx2_room::q4_0;
        case DType::q4_1: return blocks_avx2_room::q4_1;
        case DType::q8_0: return blocks_avx2_room::q8_0;
        case DType::q4_k: return blocks_avx2_room::q4_k;
        case DType::q6_k: return blocks_avx2_room::q6_k;
        default: return nullptr;
    }
}

}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
