// halves_avx2.cpp - f16 and bf16 with AVX2: to floats, and rows of them times a few vectors.
#include "src/cpu/avx2/codes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace halves_avx2_room {

using namespace codes_avx2;

static QLORA_INLINE __m256 halves8(const bool bf16, const uint8_t* p) {
    return bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(p)), 16))
                : _mm256_cvtph_ps(load16(p));
}

// A cache line at a time, and one that comes later asked for: keys and values are a stream like weights.
template <bool bf16>
static void decode(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    Ahead ahead(p, 0);
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        ahead.ask(64);
        QLORA_UNROLL
        for (int64_t j = i; j < i + 32; j += 8) _mm256_storeu_ps(out + j, halves8(bf16, p + 2 * j));
    }
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, halves8(bf16, p + 2 * i));
    if (i == count) return;
    uint8_t last[16] = {};
    float floats[8];
    __builtin_memcpy(last, p + 2 * i, size_t(count - i) * 2);
    _mm256_storeu_ps(floats, halves8(bf16, last));
    __builtin_memcpy(out + i, floats, size_t(count - i) * 4);
}

// ---- Halves have no scale to put off: two sums a vector keep the additions from waiting for each other. The last
// eight may be copies with zeros.
struct Pair { __m256 a, b; };
static QLORA_INLINE Pair halves16(const bool bf16, const uint8_t* p) {
    if (!bf16) return {_mm256_cvtph_ps(load16(p)), _mm256_cvtph_ps(load16(p + 16))};
    const __m256i zero = _mm256_setzero_si256(),
                  dealt = _mm256_permute4x64_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 0xD8);
    return {_mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, dealt)),
            _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, dealt))};
}

static QLORA_INLINE void halves_of(const bool bf16, const int m, const uint8_t* p, int64_t cols, const float* x,
                                   int64_t ldx, float* out) {
    __m256 sums[gemv_rows], more[gemv_rows];
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) sums[t] = more[t] = _mm256_setzero_ps();
    Ahead ahead(p, 0);
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16) {
        ahead.ask(32);
        const Pair w = halves16(bf16, p + i * 2);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            sums[t] = _mm256_fmadd_ps(w.a, _mm256_loadu_ps(x + t * ldx + i), sums[t]);
            more[t] = _mm256_fmadd_ps(w.b, _mm256_loadu_ps(x + t * ldx + i + 8), more[t]);
        }
    }
    for (; i < cols; i += 8) {
        const int64_t left = cols - i < 8 ? cols - i : 8;
        uint8_t last[32] = {};
        __builtin_memcpy(last, p + i * 2, size_t(left) * 2);
        const __m256 w = halves16(bf16, last).a;
        const __m256i lanes =
            _mm256_cmpgt_epi32(_mm256_set1_epi32(int(left)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums[t] = _mm256_fmadd_ps(w, _mm256_maskload_ps(x + t * ldx + i, lanes), sums[t]);
    }
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) out[t] = codes_avx2::total(_mm256_add_ps(sums[t], more[t]));
}

template <DType type>
static void dots_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx,
                    int64_t m, float* out) {
    constexpr bool bf16 = type == DType::bf16;
    for (; rows > 0; --rows, data += row_bytes, out += m) switch (m) {
        case 1: halves_of(bf16, 1, data, cols, x, ldx, out); break;
        case 2: halves_of(bf16, 2, data, cols, x, ldx, out); break;
        case 3: halves_of(bf16, 3, data, cols, x, ldx, out); break;
        default: halves_of(bf16, 4, data, cols, x, ldx, out);
    }
}

static void dots(DType type, const void* w, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx,
                 int64_t m, float* out) {
    const uint8_t* data = static_cast<const uint8_t*>(w);
    if (type == DType::f16) dots_of<DType::f16>(data, row_bytes, rows, cols, x, ldx, m, out);
    else dots_of<DType::bf16>(data, row_bytes, rows, cols, x, ldx, m, out);
}

}  // namespace halves_avx2_room

constinit const BlockDecoder f16_decoder_avx2 = halves_avx2_room::decode<false>,
                   bf16_decoder_avx2 = halves_avx2_room::decode<true>;
constinit const BlockDots half_dots_avx2 = halves_avx2_room::dots;

}}  // namespace qlora

QLORA_TARGET_END
#endif
