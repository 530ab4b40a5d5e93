// drop_avx512.cpp - the dropout mask with AVX-512: 64 elements at a time, as drop.cpp says.
#include "src/cpu/avx512/kernels_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace drop_avx512_room {

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

}  // namespace drop_avx512_room

constinit const DropRuns drop_avx512{drop_avx512_room::block, drop_avx512_room::run};

}}  // namespace qlora

QLORA_TARGET_END
#endif
