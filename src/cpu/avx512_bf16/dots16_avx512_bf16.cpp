// dots16_avx512_bf16.cpp - products of 4-bit codes and 16-bit integers on processors with products of bf16, which also
// have an instruction that adds two products of 16 bits to a sum (VNNI). dots16.h has the formula; blocks16_avx512_bf16
// and integers16_avx512_bf16 have the blocks.
//
// 128 weights of a row are four steps of 32: step p takes nibble p of each of the 32 words that hold their codes, and
// one permutation makes 32 levels of them. x is put in that order behind the rounding of AVX2. A lane adds eight
// products, as many as 14 bits times 16 allow, all of one run of 64; then both scales follow.
#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"
#include "src/cpu/vectors.h"

#include <algorithm>
#include <cmath>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace dots16_avx512_bf16_room {

// Where element e of 64 is behind dots16_avx2.round: even ones 0 to 14 and 32 to 46, and so on.
constexpr int place(int e) { return e % 2 * 32 + e / 16 % 2 * 16 + e / 32 * 8 + e % 16 / 2; }

static void round(const float* x, int64_t cols, Order16 order, Run16* to) {
    if (order != Order16::pairs) return round_blocks16_avx512_bf16(x, cols, order, to);
    dots16_avx2.round(x, cols, order, to);
    alignas(64) uint16_t places[4][32] = {};           // of the first 64 of 128; the others lie in the same way
    for (int p = 0; p < 4; ++p)
        for (int i = 0; i < 16; ++i) places[p][i] = uint16_t(place(4 * i + (p ^ 1)));
    for (int64_t c = 0; c < cols; c += 128) {
        int16_t* values = to[c / 256].values + c % 256;
        __m512i v[4];
        QLORA_UNROLL
        for (int i = 0; i < 4; ++i) v[i] = _mm512_load_si512(values + i * 32);
        QLORA_UNROLL
        for (int p = 0; p < 4; ++p) {
            const __m512i at = _mm512_load_si512(places[p]);
            const __m512i low = _mm512_permutex2var_epi16(v[0], at, v[1]),
                          high = _mm512_permutex2var_epi16(v[2], at, v[3]);
            _mm512_store_si512(values + p * 32, _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1));
        }
    }
}

static Order16 order(DType type) {
    switch (type) {
        case DType::q2_k:
        case DType::q3_k:
        case DType::q4_k:
        case DType::q5_k:
        case DType::q6_k: return Order16::integers;
        default: return Order16::blocks;
    }
}

struct Levels { __m512i of; float unit; };             // level = unit * integer of 14 bits with a sign; twice 16

static Levels levels_of(const float* codebook) {
    float most = 0;
    for (int i = 0; i < 16; ++i) most = std::fmax(most, std::fabs(codebook[i]));
    const float by = most > 0 ? 8191 / most : 0;
    const __m512i levels = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(codebook), _mm512_set1_ps(by)));
    return {_mm512_broadcast_i64x4(_mm512_cvtepi32_epi16(levels)), most / 8191};
}

// `high` rows side by side times m vectors; both are constants wherever this is inlined.
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* codes, const float* scales,
                                 const Levels& levels, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    const int64_t runs = cols / 64;
    const __m512i halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    __m512 sums[4][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = _mm512_setzero_ps();
    Ahead ahead(codes, high * (cols / 2));
    const auto add = [&](int64_t c, const bool whole) QLORA_INLINED {
        ahead.ask(64 * high);
        __m512i words[4], part[4][gemv_rows];
        __m512 scale[4];
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const uint8_t* p = codes + r * (cols / 2) + c / 2;
            const float* s = scales + r * runs + c / 64;
            words[r] = whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi64(__mmask8(0x0f), p);
            scale[r] = whole ? _mm512_mask_broadcastss_ps(_mm512_set1_ps(s[0]), 0xff00, _mm_load_ss(s + 1))
                             : _mm512_maskz_broadcastss_ps(0x00ff, _mm_load_ss(s));
        }
        QLORA_UNROLL
        for (int i = 0; i < high * m; ++i) part[i / m][i % m] = _mm512_setzero_si512();
        QLORA_UNROLL
        for (int p = 0; p < 4; ++p) {
            __m512i w[4];
            QLORA_UNROLL
            for (int r = 0; r < high; ++r) {
                w[r] = _mm512_permutexvar_epi16(words[r], levels.of);
                words[r] = _mm512_srli_epi16(words[r], 4);
            }
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                const __m512i v = _mm512_load_si512(x[t * ldx + c / 256].values + c % 256 + p * 32);
                QLORA_UNROLL
                for (int r = 0; r < high; ++r) part[r][t] = _mm512_dpwssd_epi32(part[r][t], w[r], v);
            }
        }
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const __m128 of_x = _mm_load_ps(x[t * ldx + c / 256].scales + c % 256 / 32);
            const __m512 by = _mm512_permutexvar_ps(halves, _mm512_castps128_ps512(of_x));
            QLORA_UNROLL
            for (int r = 0; r < high; ++r)
                sums[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r][t]), _mm512_mul_ps(scale[r], by), sums[r][t]);
        }
    };
    for (int64_t c = 0; c + 128 <= cols; c += 128) add(c, true);
    if (cols % 128) add(cols / 128 * 128, false);
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) out[i] = levels.unit * _mm512_reduce_add_ps(sums[i / m][i % m]);
}

template <int m>
static void codes_of(const uint8_t* codes, const float* scales, const Levels& levels, int64_t rows, int64_t cols,
                     const Run16* x, int64_t ldx, float* out) {
    constexpr int high = m == 1 ? 4 : 2;               // as many as the registers hold
    const auto at = [&](int64_t r, const int some) QLORA_INLINED {
        rows_of(some, m, codes + r * (cols / 2), scales + r * (cols / 64), levels, cols, x, ldx, out + r * m);
    };
    int64_t r = 0;
    for (; r + high <= rows; r += high) at(r, high);
    for (; r < rows; ++r) at(r, 1);
}

static void codes(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols,
                  const Run16* x, int64_t ldx, int64_t m, float* out) {
    const Levels levels = levels_of(codebook);
    switch (m) {
        case 1: return codes_of<1>(codes, scales, levels, rows, cols, x, ldx, out);
        case 2: return codes_of<2>(codes, scales, levels, rows, cols, x, ldx, out);
        case 3: return codes_of<3>(codes, scales, levels, rows, cols, x, ldx, out);
        default: return codes_of<4>(codes, scales, levels, rows, cols, x, ldx, out);
    }
}

}  // namespace dots16_avx512_bf16_room

constinit const Dots16 dots16_avx512_bf16{dots16_avx512_bf16_room::round, blocks16_avx512_bf16,
                                          dots16_avx512_bf16_room::codes, dots16_avx512_bf16_room::order, 32639};

}}  // namespace qlora

QLORA_TARGET_END
#endif
