// dots16_avx2.cpp - products of stored weights and 16-bit integers with AVX2, where codes have too many bits for those
// of bytes, which blocks16_avx2.cpp has. dots16.h has the formula, round16_avx2.cpp the order of x.
//
// 32 codes, one a byte, are widened as their even and their odd bytes: two instructions, and each multiplies 16 of x.
// Two rows go side by side, which share x and hide each other's waits.
#include "src/cpu/avx2/block_codes_avx2.h"
#include "src/cpu/scaled_rows.h"

#include <cmath>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace dots16_avx2_room {

using namespace block_codes_avx2;

static Order16 order(DType type) {
    switch (type) {
        case DType::q8_0:
        case DType::iq4_nl:
        case DType::iq4_xs: return Order16::words;
        case DType::q4_k:
        case DType::q5_k: return Order16::integers;
        case DType::q2_k:
        case DType::q3_k:
        case DType::q6_k: return Order16::sixteens;
        default: return Order16::blocks;
    }
}

// ---- Blocks whose codes have eight bits, 256 weights at a time.
struct EvenOdd { __m256i even, odd; };                 // 16 elements of 32 each

static QLORA_INLINE EvenOdd widened(const DType type, __m256i codes) {
    if (type != DType::q8_0) codes = _mm256_shuffle_epi8(twice16(reinterpret_cast<const uint8_t*>(iq4_curve)), codes);
    return {_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8), _mm256_srai_epi16(codes, 8)};
}

// Of 8 groups of 32; of blocks of 32 there may be fewer: then those of the last one again.
template <DType type>
static QLORA_INLINE __m256 scales_of(const uint8_t* p, const int groups, const bool whole) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    if constexpr (type == DType::iq4_xs) return scales_of_block(type, p).scale[0];
    if (whole) return _mm256_cvtph_ps(first_words16<bytes, false>(p));
    alignas(16) int16_t words[8];
    for (int g = 0; g < 8; ++g) __builtin_memcpy(words + g, p + (g < groups ? g : groups - 1) * bytes, 2);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(words)));
}

// groups: 8, or fewer at the end of a row of blocks of 32.
template <DType type>
static QLORA_INLINE void add_run(const int m, const uint8_t* p, const int groups, const bool whole, const Run16* x,
                                 int64_t ldx, __m256* sums) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    const __m256 scales = scales_of<type>(p, groups, whole);
    alignas(32) float scaled[gemv_rows][8];
    QLORA_UNROLL
    for (int t = 0; t < m; ++t)
        _mm256_store_ps(scaled[t], _mm256_mul_ps(scales, _mm256_load_ps(x[t * ldx].scales)));
    const auto add_group = [&](const int group) QLORA_INLINED {
        const EvenOdd w = widened(type, type == DType::iq4_xs ? codes_of(type, p, group, false)
                                                              : codes_of(type, p + group * bytes, 0, false));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const int16_t* v = x[t * ldx].values + group * 32;
            const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(w.even, load_values(v)),
                                                 _mm256_madd_epi16(w.odd, load_values(v + 16)));
            sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_broadcast_ss(scaled[t] + group), sums[t]);
        }
    };
    if (!whole) {
        for (int group = 0; group < groups; ++group) add_group(group);
        return;
    }
    QLORA_UNROLL
    for (int group = 0; group < 8; ++group) add_group(group);
}

template <DType type>
static QLORA_INLINE void rows_of_blocks(const int rows, const int m, const uint8_t* data, int64_t row_bytes,
                                        int64_t cols, const Run16* x, int64_t ldx, float* out) {
    __m256 sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < rows * m; ++i) sums[i / m][i % m] = _mm256_setzero_ps();
    constexpr int64_t elements = block_codes_avx2::elements_of(type), bytes = block_codes_avx2::bytes_of(type),
                      run_bytes = 256 / elements * bytes;
    Ahead ahead(data, rows * row_bytes);
    int64_t i = 0;
    for (; i + 256 <= cols; i += 256, data += run_bytes, ++x) {
        ahead.ask(rows * run_bytes);
        ask_near(rows, data, row_bytes, run_bytes);
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) add_run<type>(m, data + r * row_bytes, 8, true, x, ldx, sums[r]);
    }
    if (elements == 32 && i < cols) {
        const int groups = int(cols - i) / 32;
        ahead.ask(rows * groups * bytes);
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) add_run<type>(m, data + r * row_bytes, groups, false, x, ldx, sums[r]);
    }
    QLORA_UNROLL
    for (int k = 0; k < rows * m; ++k) out[k] = total(sums[k / m][k % m]);
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of_blocks<type>(high, many, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * many);
    });
}

static void blocks(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out) {
    const uint8_t* data = static_cast<const uint8_t*>(weights);
    switch (order(type)) {
        case Order16::integers:
        case Order16::sixteens: return integers16_avx2(type, weights, row_bytes, rows, cols, x, ldx, m, out);
        case Order16::words: break;
        default: return blocks16_avx2(type, weights, row_bytes, rows, cols, x, ldx, m, out);
    }
#define QLORA_CASE(t) if (type == DType::t) return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_CASE(q8_0) QLORA_CASE(iq4_nl) QLORA_CASE(iq4_xs)
#undef QLORA_CASE
}

// ---- 4-bit codes in pairs, high nibble first, whose levels are any sixteen floats: rounded to 14 bits with a sign, of
// the largest of them. So eight products, which is what a lane of 64 sums up, stay below 2^31: 8 * 8191 * 32767.
struct Levels16 {
    __m256i low, high;                                 // bytes
    float unit;                                        // level = unit * integer
};

static Levels16 levels_of(const float* codebook) {
    float most = 0;
    for (int i = 0; i < 16; ++i) most = std::fmax(most, std::fabs(codebook[i]));
    const float by = most > 0 ? 8191 / most : 0;
    uint8_t low[16], high[16];
    for (int i = 0; i < 16; ++i) {
        const int level = int(std::lrintf(codebook[i] * by));
        low[i] = uint8_t(level & 0xFF);
        high[i] = uint8_t(level >> 8 & 0xFF);
    }
    return {twice16(low), twice16(high), most / 8191};
}

// Sums of 64 weights and 64 of x, for each of m vectors; a nibble's level is put together of two bytes.
static QLORA_INLINE void add_pairs(const int m, const uint8_t* p, const Levels16& levels, const Run16* x, int64_t ldx,
                                   const int at, const float (*scaled)[4], __m256* sums) {
    const __m256i both = load32(p);
    __m256i w[4];
    QLORA_UNROLL
    for (int k = 0; k < 2; ++k) {
        const __m256i codes = nibbles(both, k == 0), low = _mm256_shuffle_epi8(levels.low, codes),
                      high = _mm256_shuffle_epi8(levels.high, codes);
        w[2 * k] = _mm256_unpacklo_epi8(low, high);
        w[2 * k + 1] = _mm256_unpackhi_epi8(low, high);
    }
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const int16_t* v = x[t * ldx].values + at * 64;
        __m256i part[4];
        QLORA_UNROLL
        for (int k = 0; k < 4; ++k) part[k] = _mm256_madd_epi16(w[k], load_values(v + k * 16));
        const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(part[0], part[1]), _mm256_add_epi32(part[2], part[3]));
        sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_broadcast_ss(scaled[t] + at), sums[t]);
    }
}

// Of a run of 256, of which the first `there` times 64 are there; `whole` says that all are.
static QLORA_INLINE void add_codes(const int m, const bool whole, const int there, const uint8_t* p,
                                   const float* scales, const Levels16& levels, const Run16* x, int64_t ldx,
                                   __m256* sums) {
    alignas(16) float scaled[gemv_rows][4];
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const float* of_x = x[t * ldx].scales;
        if (whole)
            _mm_store_ps(scaled[t], _mm_mul_ps(_mm_loadu_ps(scales),
                                               _mm_shuffle_ps(_mm_load_ps(of_x), _mm_load_ps(of_x + 4), 0x88)));
        else for (int at = 0; at < there; ++at) scaled[t][at] = scales[at] * of_x[2 * at];
    }
    if (!whole) {
        for (int at = 0; at < there; ++at) add_pairs(m, p + at * 32, levels, x, ldx, at, scaled, sums);
        return;
    }
    QLORA_UNROLL
    for (int at = 0; at < 4; ++at) add_pairs(m, p + at * 32, levels, x, ldx, at, scaled, sums);
}

static QLORA_INLINE void rows_of_codes(const int high, const int m, const uint8_t* codes, const float* scales,
                                       const Levels16& levels, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    const int64_t row_bytes = cols / 2, runs = cols / 64;
    __m256 sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = _mm256_setzero_ps();
    Ahead ahead(codes, high * row_bytes);
    const auto add = [&](const bool whole, const int there) QLORA_INLINED {
        ahead.ask(high * there * 32);
        ask_near(high, codes, row_bytes, 128);
        QLORA_UNROLL
        for (int r = 0; r < high; ++r)
            add_codes(m, whole, there, codes + r * row_bytes, scales + r * runs, levels, x, ldx, sums[r]);
    };
    int64_t c = 0;
    for (; c + 256 <= cols; c += 256, codes += 128, scales += 4, ++x) add(true, 4);
    if (c < cols) add(false, int(cols - c) / 64);
    QLORA_UNROLL
    for (int k = 0; k < high * m; ++k) out[k] = levels.unit * total(sums[k / m][k % m]);
}

// Scales that were quantized again are looked up 1024 at a time: for two rows at a time, as the sets with tables of
// bytes do it, memory was read a tenth more slowly.
static void codes(const WeightRef& w, int64_t first, int64_t rows, const Run16* x, int64_t ldx, int64_t m, float* out) {
    const Levels16 levels = levels_of(w.quant.codebook);
    const int64_t cols = w.cols;
    for_scaled_rows(kernels_avx2, w, first, rows, [&](int64_t row, int64_t some, const uint8_t* codes, float* scales) {
        for_rows(some, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
            rows_of_codes(high, many, codes + r * (cols / 2), scales + r * (cols / 64), levels, cols, x, ldx,
                          out + (row - first + r) * many);
        });
    });
}

}  // namespace dots16_avx2_room

constinit const Dots16 dots16_avx2{round16_avx2, dots16_avx2_room::blocks, dots16_avx2_room::codes,
                                   dots16_avx2_room::order};

}}  // namespace qlora

QLORA_TARGET_END
#endif
