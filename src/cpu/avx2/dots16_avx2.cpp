// dots16_avx2.cpp - products of stored weights and 16-bit integers with AVX2. dots16.h has the formula and the order of
// x.
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

// ---- Rounding.
static QLORA_INLINE __m256i load_values(const int16_t* v) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(v));
}
static QLORA_INLINE void store_values(__m256i v, int16_t* to) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), v); }

// Of absolute values as integers, among which a NaN is the largest and an infinity comes next.
static QLORA_INLINE __m256i largest8(const float* x) {
    const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8)
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + i)), no_sign));
    return most;
}
static QLORA_INLINE float largest(__m256i v) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return std::bit_cast<float>(_mm_cvtsi128_si32(m));
}

struct EvenOdd { __m256i even, odd; };                 // 16 elements of 32 each

static QLORA_INLINE EvenOdd rounded32(const float* x, __m256 by, float scale, float* sums) {
    __m256i v[4];
    QLORA_UNROLL
    for (int i = 0; i < 4; ++i) v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i * 8), by));
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7), ones = _mm256_set1_epi16(1);
    __m256i part[2];
    QLORA_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
        __m256i two[2];
        QLORA_UNROLL
        for (int k = 0; k < 2; ++k) {
            const __m256 a = _mm256_castsi256_ps(v[2 * k]), b = _mm256_castsi256_ps(v[2 * k + 1]);
            two[k] = _mm256_castps_si256(odd ? _mm256_shuffle_ps(a, b, 0xDD) : _mm256_shuffle_ps(a, b, 0x88));
        }
        part[odd] = _mm256_permutevar8x32_epi32(_mm256_packs_epi32(two[0], two[1]), in_order);
    }
    alignas(32) int32_t lanes[8];                      // each of four elements in a row
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes),
                       _mm256_add_epi32(_mm256_madd_epi16(part[0], ones), _mm256_madd_epi16(part[1], ones)));
    sums[0] = scale * float(lanes[0] + lanes[1] + lanes[2] + lanes[3]);
    sums[1] = scale * float(lanes[4] + lanes[5] + lanes[6] + lanes[7]);
    return {part[0], part[1]};
}

static void round(const float* x, int64_t cols, Order16 order, Run16* to) {
    const int64_t share = order == Order16::pairs ? 64 : 32;       // elements that share a scale
    if (cols % 256) to[cols / 256] = {};
    for (int64_t i = 0; i < cols; i += share) {
        Run16& run = to[i / 256];
        const int64_t at = i % 256;
        __m256i most8 = largest8(x + i);
        if (share == 64) most8 = _mm256_max_epi32(most8, largest8(x + i + 32));
        const float most = largest(most8), infinity = __builtin_inff();
        const float scale = most < infinity ? most < 1e-30f ? 0 : most / 32767 : __builtin_nanf("");
        const __m256 by = _mm256_set1_ps(scale > 0 ? 32767 / most : 0);
        const EvenOdd a = rounded32(x + i, by, scale, run.sums + at / 16);
        run.scales[at / 32] = scale;
        if (share == 32) {
            store_values(a.even, run.values + at);
            store_values(a.odd, run.values + at + 16);
            continue;
        }
        const EvenOdd b = rounded32(x + i + 32, by, scale, run.sums + at / 16 + 2);
        run.scales[at / 32 + 1] = scale;
        store_values(_mm256_permute2x128_si256(a.even, b.even, 0x20), run.values + at);
        store_values(_mm256_permute2x128_si256(a.even, b.even, 0x31), run.values + at + 16);
        store_values(_mm256_permute2x128_si256(a.odd, b.odd, 0x20), run.values + at + 32);
        store_values(_mm256_permute2x128_si256(a.odd, b.odd, 0x31), run.values + at + 48);
    }
}

// ---- Blocks of GGUF files, 256 weights at a time.
constexpr int zero_of(DType type) {                    // the code, as it is widened, that stands for 0
    return type == DType::q4_0 ? 8 : type == DType::q5_0 ? 16 : type == DType::q3_k ? 4 : type == DType::q6_k ? 32 : 0;
}
constexpr bool has_signs(DType type) {
    return type == DType::q8_0 || type == DType::iq4_nl || type == DType::iq4_xs || type == DType::mxfp4;
}

static QLORA_INLINE EvenOdd widened(const DType type, __m256i codes) {
    if (type == DType::iq4_nl || type == DType::iq4_xs)
        codes = _mm256_shuffle_epi8(twice16(reinterpret_cast<const uint8_t*>(iq4_curve)), codes);
    if (type == DType::mxfp4) codes = _mm256_shuffle_epi8(twice16(reinterpret_cast<const uint8_t*>(e2m1_twice)), codes);
    if (has_signs(type)) return {_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8), _mm256_srai_epi16(codes, 8)};
    return {_mm256_and_si256(codes, _mm256_set1_epi16(0x00FF)), _mm256_srli_epi16(codes, 8)};
}

// What stands at the start of the i-th of several blocks; of the last one, where there are not so many.
static QLORA_INLINE int16_t half_of(const uint8_t* p, const int64_t bytes, const int64_t i, const int64_t last) {
    int16_t half;
    __builtin_memcpy(&half, p + (i < last ? i : last) * bytes, 2);
    return half;
}
static QLORA_INLINE __m256 halves_of(const uint8_t* p, const int64_t bytes, const int64_t last) {
    return _mm256_cvtph_ps(_mm_setr_epi16(half_of(p, bytes, 0, last), half_of(p, bytes, 1, last),
                                          half_of(p, bytes, 2, last), half_of(p, bytes, 3, last),
                                          half_of(p, bytes, 4, last), half_of(p, bytes, 5, last),
                                          half_of(p, bytes, 6, last), half_of(p, bytes, 7, last)));
}
// half_power_of_2 of eight exponents: the two least are subnormal.
static QLORA_INLINE __m256 powers_of(const uint8_t* p, const int64_t bytes, const int64_t last) {
    uint64_t eight = 0;
    QLORA_UNROLL
    for (int64_t i = 0; i < 8; ++i) eight |= uint64_t(p[(i < last ? i : last) * bytes]) << 8 * i;
    const __m256i e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(eight)));
    const __m256i one = _mm256_set1_epi32(1), normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23),
                  subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, _mm256_cmpgt_epi32(e, one)));
}

// Of 8 groups of 32; of blocks of 32 there may be fewer.
static QLORA_INLINE RunScales scales_of_run(const DType type, const uint8_t* p, const int64_t groups) {
    RunScales s{};
    const int64_t bytes = block_codes_avx2::bytes_of(type);
    if (block_codes_avx2::elements_of(type) == 256) {
        s = scales_of_block(type, p);
    } else {
        s.scale[0] = type == DType::mxfp4 ? powers_of(p, bytes, groups - 1) : halves_of(p, bytes, groups - 1);
        if (has_offset(type)) s.offset[0] = halves_of(p + 2, bytes, groups - 1);
    }
    QLORA_UNROLL
    for (int i = 0; i < 2; ++i)
        if (zero_of(type)) s.offset[i] = _mm256_mul_ps(s.scale[i], _mm256_set1_ps(float(-zero_of(type))));
    return s;
}

struct Sum { __m256 products, offsets; };

// The scales of a run times those of x, for each group or half group; the offsets are added to the sum at once.
static QLORA_INLINE void scales_with_x(const DType type, const RunScales& s, const Run16& x, Sum& sum, float* scaled) {
    const __m256 by = _mm256_load_ps(x.scales);
    const __m256 low = _mm256_load_ps(x.sums), high = _mm256_load_ps(x.sums + 8);
    if (has_halves(type)) {
        _mm256_store_ps(
            scaled, _mm256_mul_ps(s.scale[0], _mm256_permutevar8x32_ps(by, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))));
        _mm256_store_ps(scaled + 8, _mm256_mul_ps(s.scale[1], _mm256_permutevar8x32_ps(
                                                                  by, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))));
        sum.offsets = _mm256_fmadd_ps(s.offset[0], low, _mm256_fmadd_ps(s.offset[1], high, sum.offsets));
        return;
    }
    _mm256_store_ps(scaled, _mm256_mul_ps(s.scale[0], by));
    if (!has_offset(type) && !zero_of(type)) return;
    const __m256 of32 = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(low, high)), 0xD8));
    sum.offsets = _mm256_fmadd_ps(s.offset[0], of32, sum.offsets);
}

static QLORA_INLINE __m256 scale_of_group(const DType type, const float* scaled, const int group) {
    if (!has_halves(type)) return _mm256_broadcast_ss(scaled + group);
    const __m256 both = _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(scaled + 2 * group)));
    return _mm256_permutevar_ps(both, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

static QLORA_INLINE void add_group(const DType type, const int m, const uint8_t* p, const int group, const Run16* x,
                                   int64_t ldx, const float (*scaled)[16], Sum* sums) {
    const bool small = block_codes_avx2::elements_of(type) == 32;
    const __m256i codes = small ? codes_of(type, p + group * block_codes_avx2::bytes_of(type), 0, false)
                                : codes_of(type, p, group, false);
    const EvenOdd w = widened(type, codes);
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const int16_t* v = x[t * ldx].values + group * 32;
        const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(w.even, load_values(v)),
                                             _mm256_madd_epi16(w.odd, load_values(v + 16)));
        sums[t].products = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale_of_group(type, scaled[t], group),
                                           sums[t].products);
    }
}

// groups: 8, or fewer at the end of a row of blocks of 32.
static QLORA_INLINE void add_run(const DType type, const int m, const uint8_t* p, const int groups, const bool whole,
                                 const Run16* x, int64_t ldx, Sum* sums) {
    const RunScales s = scales_of_run(type, p, groups);
    alignas(32) float scaled[gemv_rows][16];
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) scales_with_x(type, s, x[t * ldx], sums[t], scaled[t]);
    if (!whole) {
        for (int group = 0; group < groups; ++group) add_group(type, m, p, group, x, ldx, scaled, sums);
        return;
    }
    QLORA_UNROLL
    for (int group = 0; group < 8; ++group) add_group(type, m, p, group, x, ldx, scaled, sums);
}

static QLORA_INLINE void rows_of_blocks(const DType type, const int rows, const int m, const uint8_t* data,
                                        int64_t row_bytes, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    Sum sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < rows * m; ++i) sums[i / m][i % m] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const int64_t run_bytes = block_codes_avx2::bytes_of(type) * (256 / block_codes_avx2::elements_of(type));
    Ahead ahead(data, rows * row_bytes);
    int64_t i = 0;
    for (; i + 256 <= cols; i += 256, data += run_bytes, ++x) {
        ahead.ask(rows * run_bytes);
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) add_run(type, m, data + r * row_bytes, 8, true, x, ldx, sums[r]);
    }
    if (block_codes_avx2::elements_of(type) == 32 && i < cols) {
        ahead.ask(rows * (cols - i) / 32 * block_codes_avx2::bytes_of(type));
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r)
            add_run(type, m, data + r * row_bytes, int((cols - i) / 32), false, x, ldx, sums[r]);
    }
    QLORA_UNROLL
    for (int k = 0; k < rows * m; ++k)
        out[k] = total(_mm256_add_ps(sums[k / m][k % m].products, sums[k / m][k % m].offsets));
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of_blocks(type, high, many, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * many);
    });
}

static void blocks(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out) {
    const uint8_t* data = static_cast<const uint8_t*>(weights);
#define QLORA_CASE(t) if (type == DType::t) return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_LATE_DOT_TYPES(QLORA_CASE)
    QLORA_BLOCK_ROW_TYPES(QLORA_CASE)
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

// sums of 64 weights and 64 of x, for each of m vectors; a nibble's level is put together of two bytes.
static QLORA_INLINE void add_pairs(const int m, const uint8_t* p, float scale, const Levels16& levels, const Run16* x,
                                   int64_t ldx, int64_t at, __m256* sums) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
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
        const Run16& run = x[t * ldx];
        __m256i part[4];
        QLORA_UNROLL
        for (int k = 0; k < 4; ++k) part[k] = _mm256_madd_epi16(w[k], load_values(run.values + at + k * 16));
        const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(part[0], part[1]), _mm256_add_epi32(part[2], part[3]));
        sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale * run.scales[at / 32]), sums[t]);
    }
}

static QLORA_INLINE void rows_of_codes(const int rows, const int m, const uint8_t* codes, const float* scales,
                                       const Levels16& levels, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    __m256 sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < rows * m; ++i) sums[i / m][i % m] = _mm256_setzero_ps();
    Ahead ahead(codes, rows * (cols / 2));
    for (int64_t i = 0; i < cols; i += 64) {
        ahead.ask(32 * rows);
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) {
            const uint8_t* p = codes + r * (cols / 2) + i / 2;
            add_pairs(m, p, scales[r * (cols / 64) + i / 64], levels, x + i / 256, ldx, i % 256, sums[r]);
        }
    }
    QLORA_UNROLL
    for (int k = 0; k < rows * m; ++k) out[k] = levels.unit * total(sums[k / m][k % m]);
}

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

constinit const Dots16 dots16_avx2{dots16_avx2_room::round, dots16_avx2_room::blocks, dots16_avx2_room::codes,
                                   [](DType) { return Order16::blocks; }};

}}  // namespace qlora

QLORA_TARGET_END
#endif
