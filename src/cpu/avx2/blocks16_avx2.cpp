// blocks16_avx2.cpp - products of the block types of GGUF files and 16-bit integers with an instruction that adds two
// products of an unsigned and a signed byte. dots16.h has the formula. Here are the types with codes of four and five
// bits whose groups of 32 have a scale of their own; integers16_avx2.cpp has those whose scales are integers.
//
// x is kept as two signed bytes, v = 256 high + low, a code c of a weight as an unsigned one, so no code is widened:
//     c . v = 256 (c . high) + c . low
// Two groups go side by side, a half of the register each, elements 0 to 15 in one and 16 to 31 in another: that is how
// their nibbles lie. Sums of four products are words, for no code is above 31: 31 * 128 * 4 < 2^15. A code that has a
// sign is moved up by zero_of(), which the sums of x take back.
#include "src/cpu/avx2/block_codes_avx2.h"

#include <type_traits>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace blocks16_avx2_room {

using namespace block_codes_avx2;

// ---- Codes of two groups, whose blocks begin at a and b, as unsigned bytes.
constexpr int zero_of(DType type) {                    // the byte that stands for 0
    return type == DType::q4_0 ? 8 : type == DType::mxfp4 ? 12 : type == DType::q5_0 ? 16 : 0;
}

struct Codes { __m256i first, last; };                 // elements 0 to 15, and 16 to 31

static QLORA_INLINE __m256i moved_up(const int8_t* table, const int zero) {
    return _mm256_add_epi8(twice16(reinterpret_cast<const uint8_t*>(table)), _mm256_set1_epi8(char(zero)));
}
// 16 where the bit of an element is set: of elements 0 to 15 among the first 16 bits of either half, of 16 to 31 among
// the next ones.
static QLORA_INLINE __m256i fifth(__m256i bits, const bool last) {
    const __m256i places = _mm256_add_epi8(
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)),
        _mm256_set1_epi8(last ? 2 : 0));
    const __m256i masks = bit_masks(false), of_each = _mm256_and_si256(_mm256_shuffle_epi8(bits, places), masks);
    return _mm256_and_si256(_mm256_cmpeq_epi8(of_each, masks), _mm256_set1_epi8(16));
}

template <DType type>
static QLORA_INLINE Codes codes_of_two(const uint8_t* a, const uint8_t* b) {
    constexpr int64_t from = block_codes_avx2::bytes_of(type) - 16;
    const __m256i both = halves16(a + from, b + from);
    const Codes codes{nibbles(both, 0), nibbles(both, 1)};
    if constexpr (type == DType::mxfp4) {
        const __m256i levels = moved_up(e2m1_twice, zero_of(type));
        return {_mm256_shuffle_epi8(levels, codes.first), _mm256_shuffle_epi8(levels, codes.last)};
    } else if constexpr (type == DType::q5_0 || type == DType::q5_1) {
        const __m256i bits = halves16(a + from - 4, b + from - 4);
        return {_mm256_or_si256(codes.first, fifth(bits, false)), _mm256_or_si256(codes.last, fifth(bits, true))};
    }
    return codes;
}

// ---- Scales of eight groups, those of the first groups of all pairs before those of the second ones.
// The first four bytes of each block; of the last one, where there are not so many groups.
template <int64_t bytes>
static QLORA_INLINE __m256i first_words(const uint8_t* p, const bool whole, const int groups) {
    if (whole) return first_words32<bytes>(p);
    alignas(32) uint32_t words[8];
    for (int g = 0; g < 8; ++g) words[place_of(g, true)] = word32(p + (g < groups ? g : groups - 1) * bytes);
    return load32(reinterpret_cast<const uint8_t*>(words));
}

// half_power_of_2 of eight exponents: the two least are subnormal.
static QLORA_INLINE __m256 powers8(__m256i e) {
    const __m256i one = _mm256_set1_epi32(1), normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23),
                  subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), _mm256_min_epi32(e, one));
    return _mm256_castsi256_ps(_mm256_max_epi32(normal, subnormal));
}

struct Scales { __m256 scale, offset; };

template <DType type>
static QLORA_INLINE Scales scales_of(const uint8_t* p, const bool whole, const int groups) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    if (!has_offset(type) && type != DType::mxfp4 && whole) {
        const __m256 scale = _mm256_cvtph_ps(first_words16<bytes, true>(p));
        return {scale, scale};
    }
    const __m256i words = first_words<bytes>(p, whole, groups);
    if constexpr (type == DType::mxfp4) {
        const __m256 scale = powers8(_mm256_and_si256(words, _mm256_set1_epi32(0xFF)));
        return {scale, scale};
    }
    // the lower words, then the upper ones
    const __m256i apart = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(_mm256_and_si256(words, _mm256_set1_epi32(0xFFFF)), _mm256_srli_epi32(words, 16)), 0xD8);
    const __m256 scale = _mm256_cvtph_ps(_mm256_castsi256_si128(apart));
    return {scale, has_offset(type) ? _mm256_cvtph_ps(_mm256_extracti128_si256(apart, 1)) : scale};
}

// ---- `high` rows side by side times m vectors; both are constants wherever this is inlined.
struct Sum { __m256 products, offsets; };

// Of a run of eight groups, of which the first `groups` are there; `whole` says that all are.
template <DType type>
static QLORA_INLINE void add_run(const int high, const int m, const bool whole, const int groups, const uint8_t* p,
                                 int64_t row_bytes, const Run16* x, int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    __m256 scaled[2][gemv_rows];
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        const Scales scales = scales_of<type>(p + r * row_bytes, whole, groups);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const Run16& run = x[t * ldx];
            const __m256 of_x = _mm256_permutevar8x32_ps(_mm256_load_ps(run.scales),
                                                         _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
            scaled[r][t] = _mm256_mul_ps(scales.scale, of_x);
            sums[r][t].offsets = _mm256_fmadd_ps(scales.offset, _mm256_load_ps(run.sums32), sums[r][t].offsets);
        }
    }
    const auto add_pair = [&](const auto number) QLORA_INLINED {
        constexpr int pair = decltype(number)::value;      // a constant for compilers that do not optimize, too
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const uint8_t* a = p + r * row_bytes + 2 * pair * bytes;
            const Codes codes = codes_of_two<type>(a, whole || 2 * pair + 1 < groups ? a + bytes : a);
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                const int16_t* v = x[t * ldx].values + pair * 64;
                const __m256i upper = _mm256_add_epi16(_mm256_maddubs_epi16(codes.first, load_values(v)),
                                                       _mm256_maddubs_epi16(codes.last, load_values(v + 16)));
                const __m256i lower = _mm256_add_epi16(_mm256_maddubs_epi16(codes.first, load_values(v + 32)),
                                                       _mm256_maddubs_epi16(codes.last, load_values(v + 48)));
                const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(upper, _mm256_set1_epi16(256)),
                                                     _mm256_madd_epi16(lower, _mm256_set1_epi16(1)));
                sums[r][t].products =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_permute_ps(scaled[r][t], pair * 0x55),
                                    sums[r][t].products);
            }
        }
    };
    add_pair(std::integral_constant<int, 0>());
    if (whole || groups > 2) add_pair(std::integral_constant<int, 1>());
    if (whole || groups > 4) add_pair(std::integral_constant<int, 2>());
    if (whole || groups > 6) add_pair(std::integral_constant<int, 3>());
}

template <DType type>
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* data, int64_t row_bytes, int64_t cols,
                                 const Run16* x, int64_t ldx, float* out) {
    Sum sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type), run_bytes = 8 * bytes;
    Ahead ahead(data, high * row_bytes);
    int64_t i = 0;
    for (; i + 256 <= cols; i += 256, data += run_bytes, ++x) {
        ahead.ask(high * run_bytes);
        ask_near(high, data, row_bytes, run_bytes);
        add_run<type>(high, m, true, 8, data, row_bytes, x, ldx, sums);
    }
    if (i < cols) {
        const int groups = int(cols - i) / 32;
        ahead.ask(high * groups * bytes);
        add_run<type>(high, m, false, groups, data, row_bytes, x, ldx, sums);
    }
    QLORA_UNROLL
    for (int k = 0; k < high * m; ++k) {
        const Sum& sum = sums[k / m][k % m];
        const __m256 times = _mm256_set1_ps(has_offset(type) ? 1 : float(-zero_of(type)));
        out[k] = total(_mm256_fmadd_ps(sum.offsets, times, sum.products));
    }
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of<type>(high, many, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * many);
    });
}

}  // namespace blocks16_avx2_room

void blocks16_avx2(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out) {
    using namespace blocks16_avx2_room;
    const uint8_t* data = static_cast<const uint8_t*>(weights);
#define QLORA_CASE(t) if (type == DType::t) return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_CASE(q4_0) QLORA_CASE(q4_1) QLORA_CASE(q5_0) QLORA_CASE(q5_1) QLORA_CASE(mxfp4)
#undef QLORA_CASE
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
