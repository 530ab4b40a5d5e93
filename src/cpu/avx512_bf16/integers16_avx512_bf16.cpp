// integers16_avx512_bf16.cpp - products of the block types whose scales are integers (Q2_K to Q6_K) and 16-bit integers
// with VNNI. A block of 256 weights d * s * c + offset meets 256 values of x that share a scale (Order16::integers), so
// all of it is summed as integers:
//     c . v = 256 (c . high) + c . low,   sum over its groups of s * (c . v), then once times d and the scale of x
// Two products of a code, at most 63, and a byte of x fit into 16 bits with a sign, so an instruction that adds two
// products of 16 bits multiplies them by s. In Q2_K and Q3_K s * c is a byte (scaled_codes_avx512_bf16.h).
#include "src/cpu/avx512_bf16/bits_avx512_bf16.h"
#include "src/cpu/avx512_bf16/rows16_avx512_bf16.h"
#include "src/cpu/avx512_bf16/scaled_codes_avx512_bf16.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace integers16_avx512_bf16_room {

using namespace block_codes_avx2;
using bits_avx512_bf16::bits_at;

// ---- Codes of groups 2 * pair and the next one, in the order of the row, as unsigned bytes. A code that has a sign is
// moved up by zero_of(), which the sums of x take back.
constexpr int zero_of(DType type) { return type == DType::q6_k ? 32 : 0; }
constexpr bool has_signs(DType type) { return zero_of(type) != 0; }    // its scales

static QLORA_INLINE __m512i twice(const uint8_t* p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

template <DType type>
static QLORA_INLINE __m512i codes64(const uint8_t* p, const int pair) {
    if constexpr (type == DType::q6_k)
        return _mm512_or_si512(bits_at(_mm512_loadu_si512(p + pair / 2 * 64), pair % 2 * 4, 4),
                               bits_at(twice(p + 128 + pair / 2 * 32), pair % 2 * 4, 2, 4, 2));
    const __m512i nibbles = bits_at(twice(p + (type == DType::q4_k ? 16 : 48) + pair * 32), 0, 4, 0, 4);
    if constexpr (type == DType::q5_k)
        return _mm512_or_si512(nibbles, bits_at(twice(p + 16), pair * 2, 1, 4, 1));
    return nibbles;
}

// ---- Scales. Bytes of a block, where one instruction can spread them.
struct Bytes { __m512i scales; __m128i offsets; };     // the first sixteen or eight bytes again and again

template <DType type>
static QLORA_INLINE Bytes bytes_of_scales(const uint8_t* p) {
    if constexpr (has_signs(type)) {                   // as words of 16 bits, and as bytes
        const __m128i scales = load16(p + 192);
        return {_mm512_castsi256_si512(_mm256_cvtepi8_epi16(scales)), scales};
    } else {
        const ScalesOf8 of = scales_of_q4_k(p);
        return {_mm512_set1_epi64(int64_t(of.scales)), _mm_cvtsi64_si128(int64_t(of.offsets))};
    }
}

// For each lane of a pair of groups the scale of its 16 or 32 weights, twice.
template <DType type>
static QLORA_INLINE __m512i spread(__m512i scales, const int pair) {
    const int first = has_halves(type) ? 4 * pair : 2 * pair;
    const __m512i lanes = has_halves(type) ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                                           : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
    const __m512i twice = _mm512_or_si512(at, _mm512_slli_epi32(at, 16));
    if constexpr (has_signs(type)) return _mm512_permutexvar_epi16(twice, scales);
    return _mm512_shuffle_epi8(scales, _mm512_or_si512(twice, _mm512_set1_epi16(short(0x8000))));
}

static QLORA_INLINE __m512 spread(__m128 units, const int which) {
    return _mm512_permutexvar_ps(_mm512_set1_epi32(which), _mm512_castps128_ps512(units));
}

// What is subtracted from every weight of 16 or 32, a lane each; divided by zero_of() where codes have a sign.
template <DType type>
static QLORA_INLINE __m512 offsets_of(__m128 units, const Bytes& bytes) {
    const __m512i codes = has_signs(type) ? _mm512_cvtepi8_epi32(bytes.offsets) : _mm512_cvtepu8_epi32(bytes.offsets);
    return _mm512_mul_ps(_mm512_cvtepi32_ps(codes), spread(units, Units<type>::least));
}

// ---- `high` rows side by side times m vectors; both are constants wherever this is inlined.
struct Sum { __m512 products, offsets; };

template <DType type>
static QLORA_INLINE void add_block(const int high, const int m, const uint8_t* p, int64_t row_bytes, const Run16* x,
                                   int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    Bytes bytes[2];
    __m512i parts[2][gemv_rows][2];                    // of high bytes, of low ones
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        bytes[r] = bytes_of_scales<type>(p + r * row_bytes);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) parts[r][t][0] = parts[r][t][1] = _mm512_setzero_si512();
    }
    QLORA_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const __m512i codes = codes64<type>(p + r * row_bytes, pair), by = spread<type>(bytes[r].scales, pair);
            QLORA_UNROLL
            for (int k = 0; k < 2 * m; ++k) {
                const __m512i v = _mm512_load_si512(x[k / 2 * ldx].values + pair * 64 + k % 2 * 32);
                __m512i& part = parts[r][k / 2][k % 2];
                part = _mm512_dpwssd_epi32(part, _mm512_maddubs_epi16(codes, v), by);
            }
        }
    }
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        const __m128 units = Units<type>::of(p + r * row_bytes);
        const __m512 offsets = offsets_of<type>(units, bytes[r]);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const Run16& run = x[t * ldx];
            Sum& sum = sums[r][t];
            const __m512 by = spread(_mm_mul_ps(units, _mm_load_ps(run.scales)), Units<type>::d);
            // each is below 2^24, but 256 times the first may be too much for 32 bits: Q6_K, 63 * 127 * 127 * 16
            const __m512 high_part = _mm512_cvtepi32_ps(parts[r][t][0]), low_part = _mm512_cvtepi32_ps(parts[r][t][1]);
            const __m512 part = _mm512_fmadd_ps(high_part, _mm512_set1_ps(256), low_part);
            sum.products = _mm512_fmadd_ps(part, by, sum.products);
            const __m512 of_x = has_halves(type) ? _mm512_loadu_ps(run.sums)
                                                 : _mm512_zextps256_ps512(_mm256_load_ps(run.sums32));
            sum.offsets = _mm512_fmadd_ps(offsets, of_x, sum.offsets);
        }
    }
}

// The same of a type whose codes have their scales. All of it is below 2^31: 255 * 127 * 256 * 16.
template <DType type>
static QLORA_INLINE void add_scaled_block(const int high, const int m, const uint8_t* p, int64_t row_bytes,
                                          const Run16* x, int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    QLORA_UNROLL
    for (int r = 0; r < high; ++r, p += row_bytes) {
        __m512i w[4];
        scaled_codes_avx512_bf16::weights<type>(p, w);
        const __m128 units = Units<type>::of(p);
        __m512 offsets{};
        if constexpr (type == DType::q2_k)
            offsets = _mm512_mul_ps(_mm512_cvtepi32_ps(scaled_codes_avx512_bf16::offsets_of_q2_k(p)),
                                    spread(units, Units<type>::least));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const Run16& run = x[t * ldx];
            Sum& sum = sums[r][t];
            __m512i part = _mm512_setzero_si512();
            QLORA_UNROLL
            for (int i = 0; i < 4; ++i) part = _mm512_dpbusd_epi32(part, w[i], _mm512_load_si512(run.values + i * 64));
            part = _mm512_slli_epi32(part, 8);
            QLORA_UNROLL
            for (int i = 0; i < 4; ++i)
                part = _mm512_dpbusd_epi32(part, w[i], _mm512_load_si512(run.values + i * 64 + 32));
            if constexpr (type == DType::q3_k) part = _mm512_add_epi32(part, _mm512_load_si512(run.minus));
            const __m512 by = spread(_mm_mul_ps(units, _mm_load_ps(run.scales)), Units<type>::d);
            sum.products = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), by, sum.products);
            if constexpr (type == DType::q2_k)
                sum.offsets = _mm512_fmadd_ps(offsets, _mm512_loadu_ps(run.sums), sum.offsets);
        }
    }
}

template <DType type>
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* data, int64_t row_bytes, int64_t cols,
                                 const Run16* x, int64_t ldx, float* out) {
    Sum sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    Ahead ahead(data, high * row_bytes, 0);
    for (int64_t i = 0; i < cols; i += 256, data += bytes, ++x) {
        ahead.ask(high * bytes);
        ask_near(high, data, row_bytes, bytes);
        if constexpr (scaled_codes_avx512_bf16::has_tables(type))
            add_scaled_block<type>(high, m, data, row_bytes, x, ldx, sums);
        else add_block<type>(high, m, data, row_bytes, x, ldx, sums);
    }
    const __m512 times = _mm512_set1_ps(float(has_signs(type) ? -zero_of(type) : -1));
    __m512 totals[2 * gemv_rows];
    QLORA_UNROLL
    for (int k = 0; k < high * m; ++k) {
        const Sum& sum = sums[k / m][k % m];
        totals[k] = type == DType::q3_k ? sum.products : _mm512_fmadd_ps(sum.offsets, times, sum.products);
    }
    rows16_avx512_bf16::put_totals(high * m, totals, 1, out);
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    rows16_avx512_bf16::for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of<type>(high, many, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * many);
    });
}

}  // namespace integers16_avx512_bf16_room

void integers16_avx512_bf16(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols,
                            const Run16* x, int64_t ldx, int64_t m, float* out) {
    using namespace integers16_avx512_bf16_room;
    const uint8_t* data = static_cast<const uint8_t*>(weights);
#define QLORA_CASE(t) if (type == DType::t) return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_CASE(q2_k) QLORA_CASE(q3_k) QLORA_CASE(q4_k) QLORA_CASE(q5_k) QLORA_CASE(q6_k)
#undef QLORA_CASE
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
