// integers16_avx2.cpp - products of the block types whose scales are integers (Q2_K to Q6_K) and 16-bit integers, with
// an instruction that adds two products of an unsigned and a signed byte. A block of 256 weights d * s * c + offset
// meets 256 values of x that share a scale (Order16::integers), so all of it is summed as integers:
//     c . v = 256 (c . high) + c . low,   sum over its groups of s * (c . v), then once times d and the scale of x
// Two products of a code, at most 63, and a byte of x are a word, so an instruction that adds two products of words
// multiplies them by s.
#include "src/cpu/avx2/block_codes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace integers16_avx2_room {

using namespace block_codes_avx2;

// The code that stands for 0, in the types whose scales have signs.
constexpr int zero_of(DType type) { return type == DType::q3_k ? 4 : type == DType::q6_k ? 32 : 0; }
constexpr bool has_signs(DType type) { return zero_of(type) != 0; }

// ---- Scales.
struct Scales {
    __m256i all;                                       // sixteen words, the even ones first; or eight bytes, twice
    __m128i offsets;                                   // a byte for each 16 or 32 weights
};

template <DType type>
static QLORA_INLINE Scales scales_of(const uint8_t* p) {
    if constexpr (!has_halves(type)) {
        const ScalesOf8 of = scales_of_q4_k(p);
        return {_mm256_set1_epi64x(int64_t(of.scales)), _mm_cvtsi64_si128(int64_t(of.offsets))};
    }
    const __m128i even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    if constexpr (type == DType::q2_k) {
        const __m128i both = _mm_shuffle_epi8(load16(p), even_odd), low = _mm_set1_epi8(15);
        return {_mm256_cvtepi8_epi16(_mm_and_si128(both, low)), _mm_and_si128(_mm_srli_epi16(both, 4), low)};
    }
    const __m128i scales = _mm_shuffle_epi8(type == DType::q3_k ? scales_of_q3_k(p) : load16(p + 192), even_odd);
    return {_mm256_cvtepi8_epi16(scales), scales};
}

static QLORA_INLINE __m256 spread(__m128 units, const int which) {
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(units), _mm256_set1_epi32(which));
}

// What is subtracted from the weights times x, in the unit of the offsets.
template <DType type>
static QLORA_INLINE __m256 offsets_with_x(__m128i offsets, const Run16& x) {
    if constexpr (!has_halves(type)) return times8(_mm256_cvtepu8_epi32(offsets), _mm256_load_ps(x.sums32));
    const __m256 even = times8(_mm256_cvtepi8_epi32(offsets), _mm256_load_ps(x.sums));
    const __m256 odd = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(offsets, 8)));
    return _mm256_fmadd_ps(odd, _mm256_load_ps(x.sums + 8), even);
}

// ---- `high` rows side by side times m vectors; both are constants wherever this is inlined.
struct Sum { __m256 products, offsets; };
struct Parts { __m256i high, low; };

// Compilers sum integers in an order of theirs, for which registers do not suffice.
static QLORA_INLINE void in_this_order(__m256i& sum) { asm("" : "+x"(sum)); }

// What stands for 0 is taken back first, from sums of bytes of x: of the even 16, then of the odd ones.
template <DType type>
static QLORA_INLINE Parts first_parts(const Scales& scales, const Run16& x) {
    if constexpr (!has_signs(type)) return {_mm256_setzero_si256(), _mm256_setzero_si256()};
    const __m256i by = _mm256_slli_epi16(scales.all, type == DType::q3_k ? 2 : 5);
    return {_mm256_madd_epi16(by, load_values(x.minus_high)), _mm256_madd_epi16(by, load_values(x.minus_low))};
}

// Words of products times their scales.
static QLORA_INLINE void add(Parts& part, __m256i high, __m256i low, __m256i by) {
    part.high = _mm256_add_epi32(part.high, _mm256_madd_epi16(high, by));
    part.low = _mm256_add_epi32(part.low, _mm256_madd_epi16(low, by));
    in_this_order(part.high);
    in_this_order(part.low);
}

// 16 weights share a scale: 32 in their order, whose halves have one each.
template <DType type>
static QLORA_INLINE void add_groups(const int m, const uint8_t* p, __m256i scales, const Run16* x, int64_t ldx,
                                    Parts* parts) {
    QLORA_UNROLL
    for (int group = 0; group < 8; ++group) {
        const __m256i codes = codes_of(type, p, group, false),
                      by = _mm256_shuffle_epi8(scales, _mm256_set1_epi16(short(0x100 + 0x202 * group)));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const int16_t* v = x[t * ldx].values + group * 32;
            add(parts[t], _mm256_maddubs_epi16(codes, load_values(v)), _mm256_maddubs_epi16(codes, load_values(v + 16)),
                by);
        }
    }
}

// 32 weights share a scale: two groups side by side, a half of the register each, elements 0 to 15 in one and 16 to 31
// in another. Codes have five bits at most, so sums of four products are words too.
template <DType type>
static QLORA_INLINE void add_pairs(const int m, const uint8_t* p, __m256i scales, const Run16* x, int64_t ldx,
                                   Parts* parts) {
    const __m256i by_four = _mm256_setr_epi64x(0, 0, 4, 4), by_one = _mm256_setr_epi64x(0, 0, 1, 1);
    const uint8_t* low = p + (type == DType::q4_k ? 16 : 48);
    __m256i fifth[2];
    if constexpr (type == DType::q5_k)
        for (int i = 0; i < 2; ++i) fifth[i] = _mm256_srlv_epi64(twice16(p + 16 + i * 16), by_one);
    QLORA_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
        __m256i codes[2];
        QLORA_UNROLL
        for (int i = 0; i < 2; ++i) {
            codes[i] = nibbles(_mm256_srlv_epi64(twice16(low + pair * 32 + i * 16), by_four), 0);
            if constexpr (type == DType::q5_k) codes[i] = _mm256_or_si256(codes[i], bits(fifth[i], pair * 2, 4, 16));
        }
        const short first = short(0x8000 + 2 * pair), second = short(first + 1);
        const __m256i by = _mm256_shuffle_epi8(
            scales, _mm256_setr_m128i(_mm_set1_epi16(first), _mm_set1_epi16(second)));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const int16_t* v = x[t * ldx].values + pair * 64;
            add(parts[t],
                _mm256_add_epi16(_mm256_maddubs_epi16(codes[0], load_values(v)),
                                 _mm256_maddubs_epi16(codes[1], load_values(v + 16))),
                _mm256_add_epi16(_mm256_maddubs_epi16(codes[0], load_values(v + 32)),
                                 _mm256_maddubs_epi16(codes[1], load_values(v + 48))),
                by);
        }
    }
}

template <DType type>
static QLORA_INLINE void add_block(const int m, const uint8_t* p, const Run16* x, int64_t ldx, Sum* sums) {
    const Scales scales = scales_of<type>(p);
    Parts parts[gemv_rows];
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) parts[t] = first_parts<type>(scales, x[t * ldx]);
    if constexpr (has_halves(type)) add_groups<type>(m, p, scales.all, x, ldx, parts);
    else add_pairs<type>(m, p, scales.all, x, ldx, parts);
    const __m128 units = Units<type>::of(p);
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const Run16& run = x[t * ldx];
        Sum& sum = sums[t];
        const __m256 by = spread(_mm_mul_ps(units, _mm_load_ps(run.scales)), Units<type>::d);
        // each is far below 2^31, but 256 times the first may be too much: Q6_K, 63 * 127 * 128 * 32
        const __m256 part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(parts[t].high), _mm256_set1_ps(256),
                                            _mm256_cvtepi32_ps(parts[t].low));
        sum.products = _mm256_fmadd_ps(part, by, sum.products);
        if constexpr (!has_signs(type))
            sum.offsets = _mm256_fmadd_ps(offsets_with_x<type>(scales.offsets, run),
                                          spread(units, Units<type>::least), sum.offsets);
    }
}

template <DType type>
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* data, int64_t row_bytes, int64_t cols,
                                 const Run16* x, int64_t ldx, float* out) {
    Sum sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    Ahead ahead(data, high * row_bytes);
    for (int64_t i = 0; i < cols; i += 256, data += bytes, ++x) {
        ahead.ask(high * bytes);
        ask_near(high, data, row_bytes, bytes);
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) add_block<type>(m, data + r * row_bytes, x, ldx, sums[r]);
    }
    QLORA_UNROLL
    for (int k = 0; k < high * m; ++k) {
        const Sum& sum = sums[k / m][k % m];
        out[k] = total(_mm256_sub_ps(sum.products, sum.offsets));
    }
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of<type>(high, many, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * many);
    });
}

}  // namespace integers16_avx2_room

void integers16_avx2(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                     int64_t ldx, int64_t m, float* out) {
    using namespace integers16_avx2_room;
    const uint8_t* data = static_cast<const uint8_t*>(weights);
#define QLORA_CASE(t) if (type == DType::t) return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_CASE(q2_k) QLORA_CASE(q3_k) QLORA_CASE(q4_k) QLORA_CASE(q5_k) QLORA_CASE(q6_k)
#undef QLORA_CASE
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
