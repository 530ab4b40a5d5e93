// unpack_avx2.cpp - 4-bit codes to floats with AVX2: two tables of eight entries, chosen by the top bit of the code.
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
namespace unpack_avx2_room {

static void unpack(const uint8_t* codes, int64_t stride, const float* scales, int64_t half, const float* codebook, int64_t rows, int64_t count, float* out) {
    const __m256 low = _mm256_loadu_ps(codebook), high = _mm256_loadu_ps(codebook + 8);
    const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);   // element e of a word is nibble e ^ 1
    const int64_t runs = (count + half * 32 + 63) / 64;
    for (int64_t r = 0; r < rows; ++r, codes += stride, scales += runs, out += count) {
        for (int64_t i = 0; i < count; i += 32) {
            const __m256 scale = _mm256_broadcast_ss(scales + (i / 32 + half) / 2);
            for (int64_t j = i; j < i + 32; j += 8) {
                int32_t word;
                __builtin_memcpy(&word, codes + j / 2, 4);
                const __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);   // the tables look at bits 0 to 2 only
                const __m256 top = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
                const __m256 value = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), top);
                _mm256_storeu_ps(out + j, _mm256_mul_ps(value, scale));
            }
        }
    }
}

}  // namespace unpack_avx2_room

const FourBitKernels four_bit_avx2{unpack_avx2_room::unpack, nullptr, nullptr};

}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
