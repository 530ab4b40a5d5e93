// drop_avx2.cpp - the dropout mask with AVX2: 32 elements at a time, as drop.cpp says.
#include "src/cpu/avx2/kernels_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace drop_avx2_room {

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

}  // namespace drop_avx2_room

constinit const DropRuns drop_avx2{drop_avx2_room::block, drop_avx2_room::run};

}}  // namespace qlora

QLORA_TARGET_END
#endif
