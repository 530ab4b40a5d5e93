// drop.cpp - the dropout mask with one Philox counter a lane: 64 elements at a time with AVX-512, 32 with AVX2.
//
// uniform01(bits) >= p compares k / 2^24 with p, k = bits >> 8. Both sides are exact in double, so k >= ceil(p 2^24)
// says the same in integers. Counters are dealt to the lanes so that the 4 x 4 transposes inside 128-bit lanes leave
// the words in the order of elements: lane l of vector quarter q holds counter 4 (or 2) l + q.
#include "src/cpu/drop.h"
#include "src/base/rng.h"
#include "src/cpu/intrinsics.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace drop_room {

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
namespace avx2 {

constexpr int64_t block = 32;                          // elements: 8 counters

// of 32 x 32 bits: the even lanes, then the odd ones
static inline __m256i mul_high(__m256i a, __m256i m, __m256i& low) {
    const __m256i even = _mm256_mul_epu32(a, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
    low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

// bits >> 8 and least have 24 bits: signed compare is fine
static inline __m256 keep(__m256i bits, __m256i least, __m256 factor, const float* x) {
    const __m256i dropped = _mm256_cmpgt_epi32(least, _mm256_srli_epi32(bits, 8));
    return _mm256_andnot_ps(_mm256_castsi256_ps(dropped), _mm256_mul_ps(_mm256_loadu_ps(x), factor));
}

static void run(const float* x, float* y, uint64_t counter, int64_t blocks, int32_t least, float factor, uint64_t seed,
                uint64_t stream) {
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57),
                  deal = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i limit = _mm256_set1_epi32(least);
    const __m256 scale = _mm256_set1_ps(factor);
    for (int64_t b = 0; b < blocks; ++b, counter += 8, x += block, y += block) {
        __m256i c0 = _mm256_add_epi32(_mm256_set1_epi32(int32_t(uint32_t(counter))), deal),
                c1 = _mm256_set1_epi32(int32_t(uint32_t(counter >> 32)));
        __m256i c2 = _mm256_set1_epi32(int32_t(uint32_t(stream))),
                c3 = _mm256_set1_epi32(int32_t(uint32_t(stream >> 32)));
        uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
        for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            __m256i low0, low1;
            const __m256i high0 = mul_high(c0, m0, low0), high1 = mul_high(c2, m1, low1);
            c0 = _mm256_xor_si256(_mm256_xor_si256(high1, c1), _mm256_set1_epi32(int32_t(k0)));
            c2 = _mm256_xor_si256(_mm256_xor_si256(high0, c3), _mm256_set1_epi32(int32_t(k1)));
            c1 = low1;
            c3 = low0;
        }
        const __m256i a = _mm256_unpacklo_epi32(c0, c1), c = _mm256_unpackhi_epi32(c0, c1),
                      d = _mm256_unpacklo_epi32(c2, c3), e = _mm256_unpackhi_epi32(c2, c3);
        _mm256_storeu_ps(y, keep(_mm256_unpacklo_epi64(a, d), limit, scale, x));
        _mm256_storeu_ps(y + 8, keep(_mm256_unpackhi_epi64(a, d), limit, scale, x + 8));
        _mm256_storeu_ps(y + 16, keep(_mm256_unpacklo_epi64(c, e), limit, scale, x + 16));
        _mm256_storeu_ps(y + 24, keep(_mm256_unpackhi_epi64(c, e), limit, scale, x + 24));
    }
}

}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif
namespace avx512 {

constexpr int64_t block = 64;                          // elements: 16 counters

static inline __m512i mul_high(__m512i a, __m512i m, __m512i& low) {
    const __m512i even = _mm512_mul_epu32(a, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
    low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
    return _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
}

static inline void keep(__m512i bits, __m512i least, __m512 factor, const float* x, float* y) {
    const __mmask16 kept = _mm512_cmpge_epi32_mask(_mm512_srli_epi32(bits, 8), least);
    _mm512_storeu_ps(y, _mm512_maskz_mul_ps(kept, _mm512_loadu_ps(x), factor));
}

static void run(const float* x, float* y, uint64_t counter, int64_t blocks, int32_t least, float factor, uint64_t seed,
                uint64_t stream) {
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57),
                  limit = _mm512_set1_epi32(least);
    const __m512i deal = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 scale = _mm512_set1_ps(factor);
    for (int64_t b = 0; b < blocks; ++b, counter += 16, x += block, y += block) {
        __m512i c0 = _mm512_add_epi32(_mm512_set1_epi32(int32_t(uint32_t(counter))), deal),
                c1 = _mm512_set1_epi32(int32_t(uint32_t(counter >> 32)));
        __m512i c2 = _mm512_set1_epi32(int32_t(uint32_t(stream))),
                c3 = _mm512_set1_epi32(int32_t(uint32_t(stream >> 32)));
        uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
        for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            __m512i low0, low1;
            const __m512i high0 = mul_high(c0, m0, low0), high1 = mul_high(c2, m1, low1);
            c0 = _mm512_ternarylogic_epi32(high1, c1, _mm512_set1_epi32(int32_t(k0)), 0x96);   // three-way xor
            c2 = _mm512_ternarylogic_epi32(high0, c3, _mm512_set1_epi32(int32_t(k1)), 0x96);
            c1 = low1;
            c3 = low0;
        }
        const __m512i a = _mm512_unpacklo_epi32(c0, c1), c = _mm512_unpackhi_epi32(c0, c1),
                      d = _mm512_unpacklo_epi32(c2, c3), e = _mm512_unpackhi_epi32(c2, c3);
        keep(_mm512_unpacklo_epi64(a, d), limit, scale, x, y);
        keep(_mm512_unpackhi_epi64(a, d), limit, scale, x + 16, y + 16);
        keep(_mm512_unpacklo_epi64(c, e), limit, scale, x + 32, y + 32);
        keep(_mm512_unpackhi_epi64(c, e), limit, scale, x + 48, y + 48);
    }
}

}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

void one_by_one(const float* x, float* y, uint64_t first, int64_t count, int32_t least, float factor, uint64_t seed,
                uint64_t stream) {
    Random4 r{};
    for (int64_t i = 0; i < count; ++i) {
        const uint64_t e = first + uint64_t(i);
        if (i == 0 || (e & 3) == 0) r = philox(seed, stream, e >> 2);
        y[i] = int32_t(r.v[e & 3] >> 8) >= least ? x[i] * factor : 0;
    }
}

}  // namespace drop_room

void drop(Isa isa, const float* x, float* y, int64_t first, int64_t count, float p, uint64_t seed, uint64_t stream) {
    const int32_t least = int32_t(std::ceil(double(p) * 0x1p24));
    const float factor = 1 / (1 - p);
    int64_t done = 0;
#if defined(__x86_64__)
    const int64_t block = isa >= Isa::avx512 ? drop_room::avx512::block : drop_room::avx2::block;
    const int64_t head = std::min(count, -first & 3), blocks = (count - head) / block;
    // Counters grow in 32 bits: where the low half would overflow, which takes 2^34 elements, elements go one by one.
    const uint64_t counter = uint64_t(first + head) >> 2;
    if (isa >= Isa::avx2 && blocks > 0 && (counter & 0xffffffffu) + uint64_t(blocks * block / 4) <= 0xffffffffu) {
        drop_room::one_by_one(x, y, uint64_t(first), head, least, factor, seed, stream);
        const auto run = isa >= Isa::avx512 ? drop_room::avx512::run : drop_room::avx2::run;
        run(x + head, y + head, counter, blocks, least, factor, seed, stream);
        done = head + blocks * block;
    }
#else
    (void)isa;
#endif
    drop_room::one_by_one(x + done, y + done, uint64_t(first + done), count - done, least, factor, seed, stream);
}

}}  // namespace qlora
