// blocks16_avx512_bf16.cpp - products of the block types of GGUF files and 16-bit integers with an instruction that
// adds four products of an unsigned and a signed byte to a sum (VNNI). dots16.h has the formula. Here are the types
// whose groups of 32 have a scale of their own; integers16_avx512_bf16.cpp has those whose scales are integers.
//
// x is kept as two signed bytes, v = 256 high + low, a code c of a weight as an unsigned one, so no code is widened:
//     c . v = 256 (c . high) + c . low
// round16_avx512_bf16.cpp makes x so. Four groups go side by side, a quarter of the register each, elements 0 to 15 in
// one and 16 to 31 in another: that is how their nibbles lie, and a lane sums eight products of one group before it
// needs a scale. A code that has a sign is moved up by zero_of(), which the sums of x take back.
#include "src/cpu/avx2/block_codes_avx2.h"
#include "src/cpu/avx512_bf16/bits_avx512_bf16.h"
#include "src/cpu/avx512_bf16/rows16_avx512_bf16.h"

#include <algorithm>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace blocks16_avx512_bf16_room {

using namespace block_codes_avx2;

// ---- Codes of four groups, as unsigned bytes.
constexpr int zero_of(DType type) {                    // the byte that stands for 0
    switch (type) {
        case DType::q4_0: return 8;
        case DType::mxfp4: return 12;
        case DType::q5_0: return 16;
        case DType::q8_0:
        case DType::iq4_nl:
        case DType::iq4_xs: return 128;
        default: return 0;
    }
}

struct Codes { __m512i first, last; };                 // elements 0 to 15, and 16 to 31

// Four groups lie at p, `apart` behind it, `pair` behind it, and both behind it.
template <int64_t apart>
static QLORA_INLINE __m512i four16(const uint8_t* p, int64_t pair) {
    const __m512i two = _mm512_inserti32x4(_mm512_castsi128_si512(load16(p)), load16(p + apart), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(two, load16(p + pair), 2), load16(p + pair + apart), 3);
}
// The same of neighbours, of which 64 bytes hold three.
template <int64_t apart>
static QLORA_INLINE __m512i four16(const uint8_t* p) {
    static_assert(2 * apart + 16 <= 64);
    struct Table { alignas(64) uint8_t of[64]; };
    static constexpr Table table = [] {
        Table t{};
        for (int64_t i = 0; i < 48; ++i) t.of[i] = uint8_t(i / 16 * apart + i % 16);
        return t;
    }();
    const __m512i three = _mm512_permutexvar_epi8(_mm512_load_si512(table.of), _mm512_loadu_si512(p));
    return _mm512_inserti32x4(three, load16(p + 3 * apart), 3);
}
template <int64_t apart>
static QLORA_INLINE __m512i two32(const uint8_t* p) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(bytes32(p, false)), bytes32(p + apart, false), 1);
}
static QLORA_INLINE Codes nibbles(__m512i v) {
    const __m512i low = _mm512_set1_epi8(15);
    return {_mm512_and_si512(v, low), bits_avx512_bf16::bits_at(v, 4, 4)};
}
static QLORA_INLINE uint64_t word16(const uint8_t* p) {
    uint16_t word;
    __builtin_memcpy(&word, p, 2);
    return word;
}
// 16 more where the bit of an element is set among the 16 bits of its group.
template <int64_t apart>
static QLORA_INLINE __m512i with_fifth(__m512i codes, const uint8_t* p, int64_t pair) {
    const __mmask64 set = word16(p) | word16(p + apart) << 16 | word16(p + pair) << 32 |
                          word16(p + pair + apart) << 48;
    return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(16));
}
template <int64_t apart>
static QLORA_INLINE Codes with_fifths(Codes codes, const uint8_t* p, int64_t pair) {
    return {with_fifth<apart>(codes.first, p, pair), with_fifth<apart>(codes.last, p + 2, pair)};
}
// Where 64 bytes are looked up at once the two upper bits of a nibble's neighbour may stay: the table comes four times.
static QLORA_INLINE Codes looked_up(const int8_t* table, const int zero, __m512i nibbles) {
    const __m128i moved = _mm_add_epi8(load16(reinterpret_cast<const uint8_t*>(table)), _mm_set1_epi8(char(zero)));
    const __m512i all = _mm512_broadcast_i32x4(moved);
    return {_mm512_permutexvar_epi8(nibbles, all), _mm512_permutexvar_epi8(_mm512_srli_epi16(nibbles, 4), all)};
}

template <DType type, bool neighbours>
static QLORA_INLINE Codes codes_of_four(const uint8_t* p, int64_t pair) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    if constexpr (type == DType::q8_0) {
        const __m512i sign = _mm512_set1_epi8(char(0x80));
        const __m512i a = _mm512_xor_si512(two32<bytes>(p + 2), sign),
                      b = _mm512_xor_si512(two32<bytes>(p + 2 + pair), sign);
        return {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd)};
    }
    __m512i both;
    if constexpr (neighbours && 2 * bytes + 16 <= 64) both = four16<bytes>(p + bytes - 16);
    else both = four16<bytes>(p + bytes - 16, pair);
    if constexpr (type == DType::iq4_nl) return looked_up(iq4_curve, zero_of(type), both);
    if constexpr (type == DType::mxfp4) return looked_up(e2m1_twice, zero_of(type), both);
    const Codes codes = nibbles(both);
    if constexpr (type == DType::q5_0) return with_fifths<bytes>(codes, p + 2, pair);
    if constexpr (type == DType::q5_1) return with_fifths<bytes>(codes, p + 4, pair);
    return codes;
}
// Of groups 0 to 3 of a run of 256 weights at p, or 4 to 7.
template <DType type>
static QLORA_INLINE Codes codes_of_half(const uint8_t* p, const int half) {
    if constexpr (type == DType::iq4_xs)
        return looked_up(iq4_curve, zero_of(type), _mm512_loadu_si512(p + 8 + half * 64));
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    return codes_of_four<type, true>(p + half * 4 * bytes, 2 * bytes);
}

// ---- Scales of eight groups. Where `unit` bytes stand, `from` behind the start of each of eight blocks: as many as
// 64 bytes hold are picked with one instruction, which keeps what was picked before. Nothing behind the last block is
// read.
template <int64_t bytes, int64_t from, int64_t unit>
struct Places {
    static constexpr int64_t at_once = (64 - from - unit) / bytes + 1, steps = (8 + at_once - 1) / at_once;
    static constexpr int64_t start(int64_t step) { return std::min(step * at_once * bytes, 8 * bytes - 64); }
    static constexpr uint32_t lanes(int64_t step) {
        return uint32_t(((1 << at_once) - 1) << step * at_once & 0xff);
    }
    struct Table { alignas(16) uint8_t of[4][16]; };                   // as words of `unit` bytes
    static constexpr Table table = [] {
        Table t{};
        for (int64_t i = 0; i < 8; ++i)
            t.of[i / at_once][i * unit] = uint8_t((i * bytes + from - start(i / at_once)) / unit);
        return t;
    }();
    static QLORA_INLINE __m128i pick(const uint8_t* p) {
        __m512i picked = _mm512_setzero_si512();
        QLORA_UNROLL
        for (int64_t step = 0; step < steps; ++step) {
            const __m512i at = _mm512_castsi128_si512(load16(table.of[step])), v = _mm512_loadu_si512(p + start(step));
            picked = unit == 2 ? _mm512_mask_permutexvar_epi16(picked, lanes(step), at, v)
                               : _mm512_mask_permutexvar_epi8(picked, lanes(step), at, v);
        }
        return _mm512_castsi512_si128(picked);
    }
};
template <int64_t bytes, int64_t from>
static QLORA_INLINE __m256 halves8(const uint8_t* p) { return _mm256_cvtph_ps(Places<bytes, from, 2>::pick(p)); }

// half_power_of_2 of eight exponents: the two least are subnormal.
static QLORA_INLINE __m256 powers8(__m128i exponents) {
    const __m256i e = _mm256_cvtepu8_epi32(exponents), one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    return _mm256_castsi256_ps(_mm256_mask_sllv_epi32(normal, _mm256_cmple_epi32_mask(e, one),
                                                      _mm256_set1_epi32(0x200000), e));
}

template <DType type>
static QLORA_INLINE __m256 scales8(const uint8_t* p) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    if constexpr (type == DType::iq4_xs) return scales_of_block(type, p).scale[0];
    else if constexpr (type == DType::mxfp4) return powers8(Places<bytes, 0, 1>::pick(p));
    else return halves8<bytes, 0>(p);
}

// Of four groups alone, which lie as those of four16() do: in the lower half.
template <int64_t apart>
static QLORA_INLINE __m128i words4(const uint8_t* p, int64_t pair) {
    return _mm_cvtsi64_si128(int64_t(word16(p) | word16(p + apart) << 16 | word16(p + pair) << 32 |
                                     word16(p + pair + apart) << 48));
}
template <DType type>
static QLORA_INLINE __m256 scales4(const uint8_t* p, int64_t pair) {
    const __m128i words = words4<block_codes_avx2::bytes_of(type)>(p, pair);
    if constexpr (type == DType::mxfp4) return powers8(_mm_shuffle_epi8(words, _mm_set1_epi64x(0x06040200)));
    return _mm256_cvtph_ps(words);
}

// ---- `high` rows side by side times m vectors; both are constants wherever this is inlined.
struct Sum { __m512 products; __m256 offsets; };

// Of four groups, the first ones of a run or the last ones, a quarter of the lanes each.
static QLORA_INLINE __m512 products(const Codes& codes, const Run16& x, const int half) {
    const int16_t* v = x.values + half * 128;
    __m512i part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes.first, _mm512_load_si512(v));
    part = _mm512_slli_epi32(_mm512_dpbusd_epi32(part, codes.last, _mm512_load_si512(v + 32)), 8);
    part = _mm512_dpbusd_epi32(part, codes.first, _mm512_load_si512(v + 64));
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(part, codes.last, _mm512_load_si512(v + 96)));
}
static QLORA_INLINE __m512 spread(__m512 scales, const int half) {
    const int g = 4 * half;
    return _mm512_permutexvar_ps(_mm512_setr_epi32(g, g, g, g, g + 1, g + 1, g + 1, g + 1, g + 2, g + 2, g + 2, g + 2,
                                                   g + 3, g + 3, g + 3, g + 3), scales);
}

// Of a run of eight groups, of which the first `groups` are there; `whole` says that all are.
template <DType type>
static QLORA_INLINE void add_run(const int high, const int m, const bool whole, const int groups, const uint8_t* p,
                                 int64_t row_bytes, const Run16* x, int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    __m512 scaled[2][gemv_rows];
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        const __mmask8 there = whole ? __mmask8(0xff) : __mmask8((1 << groups) - 1);
        const auto kept = [&](__m256 v) QLORA_INLINED { return whole ? v : _mm256_maskz_mov_ps(there, v); };
        const __m256 scale = kept(scales8<type>(p + r * row_bytes));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const Run16& run = x[t * ldx];
            scaled[r][t] = _mm512_castps256_ps512(_mm256_mul_ps(scale, _mm256_load_ps(run.scales)));
            if (zero_of(type))                         // times minus zero_of(type), in the end
                sums[r][t].offsets = _mm256_fmadd_ps(scale, _mm256_load_ps(run.sums32), sums[r][t].offsets);
        }
        if constexpr (has_offset(type)) {
            const __m256 offset = kept(halves8<block_codes_avx2::bytes_of(type), 2>(p + r * row_bytes));
            QLORA_UNROLL
            for (int t = 0; t < m; ++t)
                sums[r][t].offsets =
                    _mm256_fmadd_ps(offset, _mm256_load_ps(x[t * ldx].sums32), sums[r][t].offsets);
        }
    }
    const auto add_half = [&](const int half) QLORA_INLINED {
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const Codes codes = codes_of_half<type>(p + r * row_bytes, half);
            QLORA_UNROLL
            for (int t = 0; t < m; ++t)
                sums[r][t].products = _mm512_fmadd_ps(products(codes, x[t * ldx], half), spread(scaled[r][t], half),
                                                      sums[r][t].products);
        }
    };
    add_half(0);
    if (whole || groups > 4) add_half(1);
}

// What is left of the rows: where fewer bytes follow than eight groups have, a copy is read.
template <DType type>
static QLORA_INLINE void add_rest(const int high, const int m, const int groups, const uint8_t* p, const uint8_t* end,
                                  int64_t row_bytes, const Run16* x, int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type), run_bytes = 8 * bytes;
    alignas(64) uint8_t copy[2 * run_bytes];
    if (end - p < (high - 1) * row_bytes + run_bytes) {
        std::fill_n(copy, sizeof(copy), uint8_t(0));
        for (int r = 0; r < high; ++r) std::copy_n(p + r * row_bytes, groups * bytes, copy + r * run_bytes);
        p = copy;
        row_bytes = run_bytes;
    }
    add_run<type>(high, m, false, groups, p, row_bytes, x, ldx, sums);
}

// The last 64 weights of one or two rows, side by side: x has them twice (round16_avx512_bf16.cpp).
template <DType type>
static QLORA_INLINE void add_last_64(const int high, const int m, const uint8_t* p, int64_t row_bytes, const Run16* x,
                                     int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type);
    const int64_t pair = high == 2 ? row_bytes : 0;
    const Codes codes = codes_of_four<type, false>(p, pair);
    const __mmask8 there = high == 2 ? 0x0f : 0x03;
    const __m256 scale = _mm256_maskz_mov_ps(there, scales4<type>(p, pair));
    __m256 offset = scale;                             // times minus zero_of(type), in the end
    if constexpr (has_offset(type))
        offset = _mm256_maskz_mov_ps(there, _mm256_cvtph_ps(words4<bytes>(p + 2, pair)));
    const __m256 of_row[2] = {_mm256_maskz_mov_ps(0x03, offset),
                              _mm256_maskz_permutexvar_ps(0x03, _mm256_setr_epi32(2, 3, 0, 0, 0, 0, 0, 0), offset)};
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const Run16& run = x[t * ldx];
        const __m512 by = _mm512_castps256_ps512(_mm256_mul_ps(scale, _mm256_load_ps(run.scales)));
        rows16_avx512_bf16::add_halves(high, _mm512_mul_ps(products(codes, run, 0), spread(by, 0)), sums[0][t].products,
                   sums[1][t].products);
        if constexpr (zero_of(type) || has_offset(type))
            for (int r = 0; r < high; ++r)
                sums[r][t].offsets = _mm256_fmadd_ps(of_row[r], _mm256_load_ps(run.sums32), sums[r][t].offsets);
    }
}

template <DType type>
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* data, const uint8_t* end,
                                 int64_t row_bytes, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    Sum sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm512_setzero_ps(), _mm256_setzero_ps()};
    constexpr int64_t bytes = block_codes_avx2::bytes_of(type), elements = block_codes_avx2::elements_of(type),
                      run_bytes = 256 / elements * bytes;
    Ahead ahead(data, high * row_bytes, 0);
    int64_t i = 0;
    for (; i + 256 <= cols; i += 256, data += run_bytes, ++x) {
        ahead.ask(high * run_bytes);
        ask_near(high, data, row_bytes, run_bytes);
        add_run<type>(high, m, true, 8, data, row_bytes, x, ldx, sums);
    }
    if constexpr (elements == 32)
        if (i < cols) {
            const int groups = int(cols - i) / 32;
            ahead.ask(high * groups * bytes);
            if (groups == 2) add_last_64<type>(high, m, data, row_bytes, x, ldx, sums);
            else add_rest<type>(high, m, groups, data, end, row_bytes, x, ldx, sums);
        }
    const __m512 times = _mm512_set1_ps(zero_of(type) ? float(-zero_of(type)) : 1.0f);
    __m512 totals[2 * gemv_rows];
    QLORA_UNROLL
    for (int k = 0; k < high * m; ++k) {
        const Sum& sum = sums[k / m][k % m];
        totals[k] = zero_of(type) || has_offset(type)
                        ? _mm512_fmadd_ps(_mm512_zextps256_ps512(sum.offsets), times, sum.products)
                        : sum.products;
    }
    rows16_avx512_bf16::put_totals(high * m, totals, 1, out);
}

template <DType type>
static void blocks_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x, int64_t ldx,
                      int64_t m, float* out) {
    const uint8_t* end = data + rows * row_bytes;
    rows16_avx512_bf16::for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of<type>(high, many, data + r * row_bytes, end, row_bytes, cols, x, ldx, out + r * many);
    });
}

static void blocks(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out) {
    const uint8_t* data = static_cast<const uint8_t*>(weights);
    switch (type) {
#define QLORA_CASE(t) case DType::t: return blocks_of<DType::t>(data, row_bytes, rows, cols, x, ldx, m, out);
        QLORA_CASE(q4_0) QLORA_CASE(q4_1) QLORA_CASE(q5_0) QLORA_CASE(q5_1) QLORA_CASE(q8_0)
        QLORA_CASE(iq4_nl) QLORA_CASE(iq4_xs) QLORA_CASE(mxfp4)
#undef QLORA_CASE
        default: return integers16_avx512_bf16(type, weights, row_bytes, rows, cols, x, ldx, m, out);
    }
}

}  // namespace blocks16_avx512_bf16_room

void blocks16_avx512_bf16(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols,
                          const Run16* x, int64_t ldx, int64_t m, float* out) {
    blocks16_avx512_bf16_room::blocks(type, weights, row_bytes, rows, cols, x, ldx, m, out);
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
