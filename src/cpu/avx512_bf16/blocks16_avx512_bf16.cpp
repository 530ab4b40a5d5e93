// blocks16_avx512_bf16.cpp - products of the block types of GGUF files and 16-bit integers with an instruction that
// adds four products of an unsigned and a signed byte to a sum (VNNI). dots16.h has the formula.
//
// x is kept as two signed bytes, v = 256 high + low, a code c of a weight as an unsigned one, so no code is widened:
//     c . v = 256 (c . high) + c . low
// Two groups of 32 weights fill a register, in the order of the row: each lane sums four neighbours, lanes 0 to 7 are
// of the first group. A code that has a sign is moved up by zero_of(), which the sums of x take back.
#include "src/cpu/avx2/block_codes_avx2.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"

#include <algorithm>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace blocks16_avx512_bf16_room {

using namespace block_codes_avx2;

// ---- Rounding. The largest of 32 becomes 127 * 256 + 127: more would not be two signed bytes.
constexpr float most16 = 32639;

// Run16::values of 64 elements: their high bytes, then their low ones.
static void round(const float* x, int64_t cols, Run16* to) {
    if (cols % 256) to[cols / 256] = {};
    for (int64_t i = 0; i < cols; i += 32) {
        Run16& run = to[i / 256];
        const int64_t at = i % 256;
        const __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + 16);
        // as integers, among which a NaN is the largest and an infinity comes next
        const __m512i sizes =
            _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(a)), _mm512_castps_si512(_mm512_abs_ps(b)));
        const float most = std::bit_cast<float>(_mm512_reduce_max_epi32(sizes)), infinity = __builtin_inff();
        const float scale = most < infinity ? most < 1e-30f ? 0 : most / most16 : __builtin_nanf("");
        const __m512 by = _mm512_set1_ps(scale > 0 ? most16 / most : 0);
        int8_t* bytes = reinterpret_cast<int8_t*>(run.values) + at / 64 * 128 + at % 64;
        QLORA_UNROLL
        for (int half = 0; half < 2; ++half) {
            const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(half ? b : a, by));
            const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(128)), 8);
            _mm_store_si128(reinterpret_cast<__m128i*>(bytes + half * 16), _mm512_cvtepi32_epi8(high));
            _mm_store_si128(reinterpret_cast<__m128i*>(bytes + 64 + half * 16), _mm512_cvtepi32_epi8(v));
            run.sums[at / 16 + half] = scale * float(_mm512_reduce_add_epi32(v));
        }
        run.scales[at / 32] = scale;
    }
}

// ---- Codes of groups `pair` * 2 and the next one, as unsigned bytes.
constexpr int zero_of(DType type) {                    // the byte that stands for 0
    switch (type) {
        case DType::q3_k: return 4;
        case DType::q4_0: return 8;
        case DType::mxfp4: return 12;
        case DType::q5_0: return 16;
        case DType::q6_k: return 32;
        case DType::q8_0:
        case DType::iq4_nl:
        case DType::iq4_xs: return 128;
        default: return 0;
    }
}

static QLORA_INLINE __m512i both(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
static QLORA_INLINE __m512i low_bits(__m512i v, const int bits) {
    return _mm512_and_si512(v, _mm512_set1_epi8(char((1 << bits) - 1)));
}
// 32 bytes twice, from where the first group takes bits `shift` on and the second `more` higher ones.
static QLORA_INLINE __m512i twice32(const uint8_t* p, const int shift, const int more) {
    const __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i by = both(_mm256_set1_epi16(short(shift)), _mm256_set1_epi16(short(shift + more)));
    return _mm512_srlv_epi16(v, by);
}
// Two groups of 16 bytes each, whose low nibbles come first.
static QLORA_INLINE __m512i nibbles64(const uint8_t* p, const uint8_t* q) {
    const __m512i by = _mm512_broadcast_i64x4(_mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    return low_bits(_mm512_srlv_epi32(both(twice16(p), twice16(q)), by), 4);
}
static QLORA_INLINE __m512i fifth_bits(__m512i codes, const uint8_t* p, const uint8_t* q) {
    const __mmask64 set = uint64_t(word32(p)) | uint64_t(word32(q)) << 32;
    return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(16));
}
// `value` more where bit `bit` of 32 bytes is set, of the second group bit + 1.
static QLORA_INLINE __m512i with_bits(__m512i codes, const uint8_t* p, const int bit, const int value) {
    const __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i one = both(_mm256_set1_epi8(char(1 << bit)), _mm256_set1_epi8(char(2 << bit)));
    return _mm512_mask_add_epi8(codes, _mm512_test_epi8_mask(v, one), codes, _mm512_set1_epi8(char(value)));
}
static QLORA_INLINE __m512i looked_up(const int8_t* table, const int zero, __m512i codes) {
    const __m128i moved = _mm_add_epi8(load16(reinterpret_cast<const uint8_t*>(table)), _mm_set1_epi8(char(zero)));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(moved), codes);
}

static QLORA_INLINE __m512i codes64(const DType type, const uint8_t* p, const int pair) {
    const int64_t bytes = block_codes_avx2::bytes_of(type);
    const uint8_t *a = p + 2 * pair * bytes, *b = a + bytes;           // of types whose blocks are groups
    switch (type) {
        case DType::q4_0: return nibbles64(a + 2, b + 2);
        case DType::q4_1: return nibbles64(a + 4, b + 4);
        case DType::q5_0: return fifth_bits(nibbles64(a + 6, b + 6), a + 2, b + 2);
        case DType::q5_1: return fifth_bits(nibbles64(a + 8, b + 8), a + 4, b + 4);
        case DType::q8_0: return _mm512_xor_si512(both(bytes32(a + 2, false), bytes32(b + 2, false)),
                                                  _mm512_set1_epi8(char(0x80)));
        case DType::iq4_nl: return looked_up(iq4_curve, zero_of(type), nibbles64(a + 2, b + 2));
        case DType::mxfp4: return looked_up(e2m1_twice, zero_of(type), nibbles64(a + 1, b + 1));
        case DType::iq4_xs:
            return looked_up(iq4_curve, zero_of(type), nibbles64(p + 8 + pair * 32, p + 24 + pair * 32));
        case DType::q2_k: return low_bits(twice32(p + 16 + pair / 2 * 32, pair % 2 * 4, 2), 2);
        case DType::q3_k:
            return with_bits(low_bits(twice32(p + 32 + pair / 2 * 32, pair % 2 * 4, 2), 2), p, pair * 2, 4);
        case DType::q4_k: return low_bits(twice32(p + 16 + pair * 32, 0, 4), 4);
        case DType::q5_k: return with_bits(low_bits(twice32(p + 48 + pair * 32, 0, 4), 4), p + 16, pair * 2, 16);
        default: break;
    }
    const __m512i low = _mm512_loadu_si512(p + pair / 2 * 64);         // q6_k
    const __m512i high = twice32(p + 128 + pair / 2 * 32, pair % 2 * 4, 2);
    return _mm512_or_si512(low_bits(pair % 2 ? _mm512_srli_epi16(low, 4) : low, 4),
                           _mm512_slli_epi16(low_bits(high, 2), 4));
}

// ---- Scales. The half `from` bytes behind the start of each of eight blocks: two instructions pick four of them each,
// among the first 128 bytes and among 128 of which none lies behind the last block.
struct Places { alignas(32) int16_t of[2][8]; int64_t second; };       // in words; second: where the others begin

static constexpr Places places_of_halves(const int64_t bytes, const int64_t from) {
    Places to{{}, std::min(bytes * 4, bytes * 8 - 128)};
    for (int i = 0; i < 4; ++i) {
        to.of[0][i] = int16_t((i * bytes + from) / 2);
        to.of[1][i] = int16_t(((i + 4) * bytes + from - to.second) / 2);
    }
    return to;
}

template <int64_t bytes, int64_t from>
static QLORA_INLINE __m256 halves8(const uint8_t* p) {
    static constexpr Places places = places_of_halves(bytes, from);
    const auto four = [&](const int half, const uint8_t* q) QLORA_INLINED {
        const __m128i at = _mm_load_si128(reinterpret_cast<const __m128i*>(places.of[half]));
        return _mm512_castsi512_si128(_mm512_permutex2var_epi16(_mm512_loadu_si512(q), _mm512_castsi128_si512(at),
                                                                _mm512_loadu_si512(q + 64)));
    };
    return _mm256_cvtph_ps(_mm_unpacklo_epi64(four(0, p), four(1, p + places.second)));
}

// half_power_of_2 of eight exponents: the two least are subnormal.
static QLORA_INLINE __m256 powers8(__m128i exponents) {
    const __m256i e = _mm256_cvtepu8_epi32(exponents), one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    return _mm256_castsi256_ps(_mm256_mask_sllv_epi32(normal, _mm256_cmple_epi32_mask(e, one),
                                                      _mm256_set1_epi32(0x200000), e));
}
static QLORA_INLINE __m128i exponents8(const uint8_t* p) {
    const __m128i at = _mm_setr_epi8(0, 17, 34, 51, 68, 85, 102, 119, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castsi512_si128(_mm512_permutex2var_epi8(_mm512_loadu_si512(p), _mm512_castsi128_si512(at),
                                                           _mm512_loadu_si512(p + 64)));
}

// Of 8 groups of 32.
template <DType type>
static QLORA_INLINE RunScales scales_of(const uint8_t* p) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    RunScales s{};
    if constexpr (block_codes_avx2::elements_of(type) == 256) {
        s = scales_of_block(type, p);
    } else if constexpr (type == DType::mxfp4) {
        s.scale[0] = powers8(exponents8(p));
    } else {
        s.scale[0] = halves8<bytes, 0>(p);
        if (has_offset(type)) s.offset[0] = halves8<bytes, 2>(p);
    }
    QLORA_UNROLL
    for (int i = 0; i < 2; ++i)
        if (zero_of(type)) s.offset[i] = _mm256_mul_ps(s.scale[i], _mm256_set1_ps(float(-zero_of(type))));
    return s;
}

struct Sum { __m512 products; __m256 offsets; };

// Of a run for one vector: its scales times those of x, of groups or half groups; offsets are added to the sum at
// once.
static QLORA_INLINE __m512 with_x(const DType type, const RunScales& s, const Run16& x, Sum& sum) {
    const __m256 by = _mm256_load_ps(x.scales), low = _mm256_load_ps(x.sums), high = _mm256_load_ps(x.sums + 8);
    if (has_halves(type)) {
        sum.offsets = _mm256_fmadd_ps(s.offset[0], low, _mm256_fmadd_ps(s.offset[1], high, sum.offsets));
        const __m512 twice = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                                   _mm512_castps256_ps512(by));
        return _mm512_mul_ps(_mm512_insertf32x8(_mm512_castps256_ps512(s.scale[0]), s.scale[1], 1), twice);
    }
    if (has_offset(type) || zero_of(type)) {
        const __m256 of32 = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(low, high)), 0xD8));
        sum.offsets = _mm256_fmadd_ps(s.offset[0], of32, sum.offsets);
    }
    return _mm512_castps256_ps512(_mm256_mul_ps(s.scale[0], by));
}

// Which of the scales of a run lane after lane of pair 0 takes; of the next pairs 2 or 4 further ones.
static QLORA_INLINE __m512i places_of(const DType type) {
    return has_halves(type) ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                            : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
}

// Of the first group alone, where no block of the next one follows in memory.
template <DType type>
static QLORA_INLINE __m512i codes_alone(const uint8_t* p) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    alignas(64) uint8_t two[128] = {};
    __builtin_memcpy(two, p, size_t(bytes));
    return codes64(type, two, 0);
}

// ---- `high` rows side by side times m vectors; both are constants wherever this is inlined.
static QLORA_INLINE void add_products(__m512i codes, const int16_t* v, __m512 scale, __m512& sum) {
    const __m512i by_256 = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, _mm512_load_si512(v));
    const __m512i products = _mm512_dpbusd_epi32(_mm512_slli_epi32(by_256, 8), codes, _mm512_load_si512(v + 32));
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sum);
}

template <DType type>
static QLORA_INLINE void add_run(const int high, const int m, const uint8_t* p, int64_t row_bytes, const Run16* x,
                                 int64_t ldx, Sum (&sums)[4][gemv_rows]) {
    __m512 scaled[4][gemv_rows];
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        const RunScales s = scales_of<type>(p + r * row_bytes);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) scaled[r][t] = with_x(type, s, x[t * ldx], sums[r][t]);
    }
    QLORA_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
        const __m512i places = _mm512_add_epi32(places_of(type), _mm512_set1_epi32(pair * (has_halves(type) ? 4 : 2)));
        __m512i codes[4];
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) codes[r] = codes64(type, p + r * row_bytes, pair);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            QLORA_UNROLL
            for (int r = 0; r < high; ++r)
                add_products(codes[r], x[t * ldx].values + pair * 64, _mm512_permutexvar_ps(places, scaled[r][t]),
                             sums[r][t].products);
        }
    }
}

static QLORA_INLINE float half_at(const uint8_t* p) {
    int16_t half;
    __builtin_memcpy(&half, p, 2);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

// What is left of a row of blocks of 32, two at a time.
template <DType type>
static QLORA_INLINE void add_rest(const int high, const int m, const uint8_t* p, int64_t row_bytes, const int groups,
                                  const Run16* x, int64_t ldx, Sum (&sums)[4][gemv_rows]) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    for (int pair = 0; 2 * pair < groups; ++pair) {
        const bool alone = 2 * pair + 1 == groups;
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const uint8_t* a = p + r * row_bytes + 2 * pair * bytes;
            const uint8_t* b = alone ? a : a + bytes;                  // x is 0 in the place of what is not there
            const __m512i codes = alone ? codes_alone<type>(a) : codes64(type, a, 0);
            const float d[2] = {type == DType::mxfp4 ? half_power_of_2(*a) : half_at(a),
                                type == DType::mxfp4 ? half_power_of_2(*b) : half_at(b)};
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                const Run16& run = x[t * ldx];
                const __m512 scale = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(d[0] * run.scales[2 * pair]),
                                                          _mm512_set1_ps(d[1] * run.scales[2 * pair + 1]));
                add_products(codes, run.values + pair * 64, scale, sums[r][t].products);
                if (!has_offset(type) && !zero_of(type)) continue;
                const float* of = run.sums + 4 * pair;
                const float offset = has_offset(type)
                                         ? half_at(a + 2) * (of[0] + of[1]) + half_at(b + 2) * (of[2] + of[3])
                                         : float(-zero_of(type)) * (d[0] * (of[0] + of[1]) + d[1] * (of[2] + of[3]));
                sums[r][t].offsets = _mm256_add_ps(sums[r][t].offsets, _mm256_zextps128_ps256(_mm_set_ss(offset)));
            }
        }
    }
}

template <DType type>
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* data, int64_t row_bytes,
                                 int64_t cols, const Run16* x, int64_t ldx, float* out) {
    Sum sums[4][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm512_setzero_ps(), _mm256_setzero_ps()};
    const int64_t run_bytes = block_codes_avx2::bytes_of(type) * (256 / block_codes_avx2::elements_of(type));
    Ahead ahead(data, high * row_bytes);
    int64_t i = 0;
    for (; i + 256 <= cols; i += 256, data += run_bytes, ++x) {
        ahead.ask(high * run_bytes);
        add_run<type>(high, m, data, row_bytes, x, ldx, sums);
    }
    if constexpr (block_codes_avx2::elements_of(type) == 32)
        if (i < cols) {
            const int groups = int(cols - i) / 32;
            ahead.ask(high * groups * block_codes_avx2::bytes_of(type));
            add_rest<type>(high, m, data, row_bytes, groups, x, ldx, sums);
        }
    QLORA_UNROLL
    for (int k = 0; k < high * m; ++k)
        out[k] = _mm512_reduce_add_ps(sums[k / m][k % m].products) + total(sums[k / m][k % m].offsets);
}

template <DType type, int m>
static void rows_times(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                       float* out) {
    constexpr int high = m <= 2 ? 2 : 1;               // as many as the registers hold
    int64_t r = 0;
    for (; r + high <= rows; r += high)
        rows_of<type>(high, m, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * m);
    for (; r < rows; ++r) rows_of<type>(1, m, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * m);
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    switch (m) {
        case 1: return rows_times<type, 1>(data, row_bytes, rows, cols, x, ldx, out);
        case 2: return rows_times<type, 2>(data, row_bytes, rows, cols, x, ldx, out);
        case 3: return rows_times<type, 3>(data, row_bytes, rows, cols, x, ldx, out);
        default: return rows_times<type, 4>(data, row_bytes, rows, cols, x, ldx, out);
    }
}

static void blocks(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out) {
    const uint8_t* data = static_cast<const uint8_t*>(weights);
#define QLORA_CASE(t) if (type == DType::t) return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_LATE_DOT_TYPES(QLORA_CASE)
    QLORA_BLOCK_ROW_TYPES(QLORA_CASE)
#undef QLORA_CASE
}

}  // namespace blocks16_avx512_bf16_room

void round_blocks16_avx512_bf16(const float* x, int64_t cols, Run16* to) {
    blocks16_avx512_bf16_room::round(x, cols, to);
}
void blocks16_avx512_bf16(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols,
                          const Run16* x, int64_t ldx, int64_t m, float* out) {
    blocks16_avx512_bf16_room::blocks(type, weights, row_bytes, rows, cols, x, ldx, m, out);
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
