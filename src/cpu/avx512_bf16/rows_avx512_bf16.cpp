// rows_avx512_bf16.cpp - few vectors times rows of stored weights with products of bf16. rows_bf16.h has the formula.
//
// 128 weights of a row are four steps of 32: step p takes nibble p of each of the 32 words that hold their codes, so
// that shifts bring codes into place and one permutation makes 32 numbers of them. x lies in the same order:
// {group of 128, step, vector, 32}, one stream whatever the number of vectors.
// Up to four vectors meet the numbers in registers. For more, four rows of 512 weights become a tile in first-level
// cache, which groups of four vectors go over one after the other.
#include "src/cpu/avx512/lanes_avx512.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"

#include <algorithm>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace rows_avx512_bf16_room {

// 128 weights of a row: numbers {step, 32}, and what their products are multiplied with, unless that is in them.
struct Group { __m512bh steps[4]; __m512 scale; };

// ---- 4-bit codes, high nibble first, with a scale for 64 of them: each scale makes a codebook of its own in bf16, and
// both lie in one register, of which bit 4 of an index chooses the half.
struct Codes {
    static constexpr bool late = false;
    const uint8_t* codes;
    const float* scales;
    __m512 levels;
    int64_t cols;

    static constexpr int64_t group_bytes = 64;
    Codes row(int64_t r) const { return {codes + r * (cols / 2), scales + r * (cols / 64), levels, cols}; }
    const uint8_t* bytes() const { return codes; }

    // left: of the weights from the group on, 64 or at least 128
    QLORA_INLINE void read(int64_t group, int64_t left, Group& to) const {
        const uint8_t* p = codes + group * 64;
        const float* scale = scales + group * 2;
        const __m512i words = left >= 128 ? _mm512_loadu_si512(p)
                                          : _mm512_maskz_loadu_epi64(__mmask8(0x0f), p);
        const __m512 a = _mm512_mul_ps(levels, _mm512_set1_ps(scale[0])),
                     b = _mm512_mul_ps(levels, _mm512_set1_ps(left >= 128 ? scale[1] : 0.0f));
        const __m512i book = (__m512i)_mm512_cvtne2ps_pbh(b, a);
        const __m512i nibbles = _mm512_set1_epi16(0x0f0f);
        const __m512i half = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(0x1010), 1);
        constexpr int and_or = 0xea;
        const __m512i even = _mm512_ternarylogic_epi32(words, nibbles, half, and_or),
                      odd = _mm512_ternarylogic_epi32(_mm512_srli_epi16(words, 4), nibbles, half, and_or);
        to.steps[0] = (__m512bh)_mm512_permutexvar_epi16(even, book);
        to.steps[1] = (__m512bh)_mm512_permutexvar_epi16(odd, book);
        to.steps[2] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(even, 8), book);
        to.steps[3] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(odd, 8), book);
    }
};

// ---- q4_0: blocks of a half and 32 codes, those of the low nibbles first. Four blocks fill a register.
static QLORA_INLINE uint64_t half_at(const uint8_t* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return h;
}
static QLORA_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

struct Q4_0 {
    static constexpr bool late = true;
    const uint8_t* data;
    int64_t stride;

    static constexpr int64_t group_bytes = 72;
    Q4_0 row(int64_t r) const { return {data + r * stride, stride}; }
    const uint8_t* bytes() const { return data; }

    // left: a multiple of 32
    QLORA_INLINE void read(int64_t group, int64_t left, Group& to) const {
        const uint8_t* p = data + group * group_bytes;
        const int64_t last = left >= 128 ? 3 : left / 32 - 1;
        const auto block = [&](int64_t i) QLORA_INLINED { return p + (i < last ? i : last) * 18; };
        __m512i words = _mm512_castsi256_si512(_mm256_inserti128_si256(_mm256_castsi128_si256(load16(block(0) + 2)),
                                                                       load16(block(1) + 2), 1));
        words = _mm512_inserti64x4(words, _mm256_inserti128_si256(_mm256_castsi128_si256(load16(block(2) + 2)),
                                                                  load16(block(3) + 2), 1), 1);
        const uint64_t halves = half_at(block(0)) | half_at(block(1)) << 16 | half_at(block(2)) << 32 |
                                half_at(block(3)) << 48;
        const __m128 scales = _mm_cvtph_ps(_mm_cvtsi64_si128(int64_t(halves)));
        to.scale = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                         _mm512_castps128_ps512(scales));
        // -8 .. 7 in bf16, twice: bit 4 of an index is one of another code
        const __m512i book = _mm512_broadcast_i64x4(_mm256_setr_epi16(
            short(0xc100), short(0xc0e0), short(0xc0c0), short(0xc0a0), short(0xc080), short(0xc040), short(0xc000),
            short(0xbf80), 0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0));
        QLORA_UNROLL
        for (int p4 = 0; p4 < 4; ++p4)
            to.steps[p4] = (__m512bh)_mm512_permutexvar_epi16(p4 ? _mm512_srli_epi16(words, 4 * unsigned(p4)) : words,
                                                              book);
    }
};

// ---- f16 and bf16: steps of 32 neighbours.
static QLORA_INLINE __mmask32 first_lanes(int64_t n) {
    return n >= 32 ? ~__mmask32(0) : n > 0 ? (__mmask32(1) << n) - 1 : 0;
}

template <bool bf16>
struct Halves {
    static constexpr bool late = false;
    const uint8_t* data;
    int64_t stride;

    static constexpr int64_t group_bytes = 256;
    Halves row(int64_t r) const { return {data + r * stride, stride}; }
    const uint8_t* bytes() const { return data; }

    QLORA_INLINE void read(int64_t group, int64_t left, Group& to) const {
        QLORA_UNROLL
        for (int p = 0; p < 4; ++p) {
            const __mmask32 lanes = left >= 128 ? ~__mmask32(0) : first_lanes(left - p * 32);
            const __m512i h = _mm512_maskz_loadu_epi16(lanes, data + group * group_bytes + p * 64);
            to.steps[p] = bf16 ? (__m512bh)h
                               : _mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)),
                                                     _mm512_cvtph_ps(_mm512_castsi512_si256(h)));
        }
    }
};

// ---- In registers: `high` rows side by side times m <= 4 vectors. Both are constants wherever this is inlined.
template <class Rows>
static QLORA_INLINE void rows_of(const int high, const int m, const Rows& rows, int64_t cols, const uint16_t* x,
                                 float* out) {
    __m512 sums[4][4];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = _mm512_setzero_ps();
    Ahead ahead(rows.bytes(), high * (rows.row(1).bytes() - rows.bytes()));
    const auto add = [&](int64_t group, int64_t left) QLORA_INLINED {
        Group g[4];
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) rows.row(r).read(group, left, g[r]);
        ahead.ask(high * Rows::group_bytes);
        __m512 part[4][4];
        QLORA_UNROLL
        for (int i = 0; i < high * m; ++i) part[i / m][i % m] = Rows::late ? _mm512_setzero_ps() : sums[i / m][i % m];
        QLORA_UNROLL
        for (int p = 0; p < 4; ++p) {
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                const __m512bh v = (__m512bh)_mm512_load_si512(x + ((group * 4 + p) * m + t) * 32);
                QLORA_UNROLL
                for (int r = 0; r < high; ++r) part[r][t] = _mm512_dpbf16_ps(part[r][t], g[r].steps[p], v);
            }
        }
        QLORA_UNROLL
        for (int i = 0; i < high * m; ++i)
            sums[i / m][i % m] = Rows::late ? _mm512_fmadd_ps(part[i / m][i % m], g[i / m].scale, sums[i / m][i % m])
                                            : part[i / m][i % m];
    };
    for (int64_t c = 0; c + 128 <= cols; c += 128) add(c / 128, 128);
    if (cols % 128) add(cols / 128, cols % 128);
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) out[i] = lanes_avx512::total(sums[i / m][i % m]);
}

template <int m, class Rows>
static QLORA_INLINE void in_registers(const Rows& rows, int64_t count, int64_t cols, const uint16_t* x, float* out) {
    constexpr int high = m <= 2 ? 4 : 2;               // as many as the registers hold
    int64_t r = 0;
    for (; r + high <= count; r += high) rows_of(high, m, rows.row(r), cols, x, out + r * m);
    for (; r < count; ++r) rows_of(1, m, rows.row(r), cols, x, out + r * m);
}

// ---- By tiles: the same sums in the same order.
constexpr int tile_high = 4, tile_groups = 4;          // rows, and groups of 128 of their columns: 16 KiB
struct Tile {
    alignas(64) __m512bh numbers[tile_groups][4][tile_high];
    __m512 scales[tile_groups][tile_high];
    __m512 sums[tile_high][most_gemv_rows];
};

// m <= 4 of the `of` vectors, from vector `first` on
template <int m, bool late>
__attribute__((noinline)) static void add_tile(Tile& tile, int64_t groups, const uint16_t* x, int64_t of,
                                               int64_t first) {
    __m512 sums[tile_high][m];
    QLORA_UNROLL
    for (int i = 0; i < tile_high * m; ++i) sums[i / m][i % m] = tile.sums[i / m][first + i % m];
    for (int64_t group = 0; group < groups; ++group) {
        __m512 part[tile_high][m];
        QLORA_UNROLL
        for (int i = 0; i < tile_high * m; ++i) part[i / m][i % m] = late ? _mm512_setzero_ps() : sums[i / m][i % m];
        QLORA_UNROLL
        for (int p = 0; p < 4; ++p) {
            const uint16_t* v = x + ((group * 4 + p) * of + first) * 32;
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                const __m512bh vector = (__m512bh)_mm512_load_si512(v + t * 32);
                QLORA_UNROLL
                for (int r = 0; r < tile_high; ++r)
                    part[r][t] = _mm512_dpbf16_ps(part[r][t], tile.numbers[group][p][r], vector);
            }
        }
        QLORA_UNROLL
        for (int i = 0; i < tile_high * m; ++i)
            sums[i / m][i % m] = late ? _mm512_fmadd_ps(part[i / m][i % m], tile.scales[group][i / m],
                                                        sums[i / m][i % m])
                                      : part[i / m][i % m];
    }
    QLORA_UNROLL
    for (int i = 0; i < tile_high * m; ++i) tile.sums[i / m][first + i % m] = sums[i / m][i % m];
}

template <class Rows>
static QLORA_INLINE void fill(Tile& tile, const Rows& rows, int64_t count, int64_t from, int64_t cols) {
    const int64_t groups = std::min<int64_t>(tile_groups, (cols - from * 128 + 127) / 128);
    for (int64_t r = 0; r < tile_high; ++r) {
        const Rows row = rows.row(std::min(r, count - 1));
        Ahead ahead(row.bytes() + from * Rows::group_bytes, 0);
        for (int64_t g = 0; g < groups; ++g) {
            Group made;
            const int64_t left = cols - (from + g) * 128;
            if (left >= 128) row.read(from + g, 128, made);
            else row.read(from + g, left, made);
            ahead.ask(Rows::group_bytes);
            QLORA_UNROLL
            for (int p = 0; p < 4; ++p) tile.numbers[g][p][r] = made.steps[p];
            if (Rows::late) tile.scales[g][r] = made.scale;
        }
    }
}

template <class Rows>
static QLORA_INLINE void by_tiles(const Rows& rows, int64_t count, int64_t cols, const uint16_t* x, int64_t m,
                                  float* out) {
    Tile tile;
    const int64_t groups = (cols + 127) / 128;
    for (int64_t r = 0; r < count; r += tile_high) {
        for (auto& row : tile.sums)
            for (__m512& sum : row) sum = _mm512_setzero_ps();
        for (int64_t from = 0; from < groups; from += tile_groups) {
            fill(tile, rows.row(r), count - r, from, cols);
            const int64_t some = std::min<int64_t>(tile_groups, groups - from);
            const uint16_t* v = x + from * m * 128;
            int64_t t = 0;
            for (; t + 4 <= m; t += 4) add_tile<4, Rows::late>(tile, some, v, m, t);
            switch (m - t) {
                case 3: add_tile<3, Rows::late>(tile, some, v, m, t); break;
                case 2: add_tile<2, Rows::late>(tile, some, v, m, t); break;
                case 1: add_tile<1, Rows::late>(tile, some, v, m, t); break;
                default: break;
            }
        }
        const __mmask16 all = __mmask16((1u << m) - 1);
        for (int64_t i = 0; i < std::min<int64_t>(tile_high, count - r); ++i)
            _mm512_mask_storeu_ps(out + (r + i) * m, all, lanes_avx512::totals(tile.sums[i]));
    }
}

template <class Rows>
static QLORA_INLINE void dots(const Rows& rows, int64_t count, int64_t cols, const uint16_t* x, int64_t m,
                              float* out) {
    switch (m) {
        case 1: return in_registers<1>(rows, count, cols, x, out);
        case 2: return in_registers<2>(rows, count, cols, x, out);
        case 3: return in_registers<3>(rows, count, cols, x, out);
        case 4: return in_registers<4>(rows, count, cols, x, out);
        default: return by_tiles(rows, count, cols, x, m, out);
    }
}

static void codes(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols,
                  const uint16_t* x, int64_t m, float* out) {
    dots(Codes{codes, scales, _mm512_loadu_ps(codebook), cols}, rows, cols, x, m, out);
}

static void blocks(DType type, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const uint16_t* x,
                   int64_t m, float* out) {
    const uint8_t* data = static_cast<const uint8_t*>(weights);
    if (type == DType::q4_0) dots(Q4_0{data, row_bytes}, rows, cols, x, m, out);
    else if (type == DType::f16) dots(Halves<false>{data, row_bytes}, rows, cols, x, m, out);
    else dots(Halves<true>{data, row_bytes}, rows, cols, x, m, out);
}

enum Order { of_pairs, of_q4_0, of_neighbours };
static int order(DType type) {
    return is_4bit(type)                                    ? of_pairs
           : type == DType::q4_0                            ? of_q4_0
           : type == DType::f16 || type == DType::bf16      ? of_neighbours
                                                            : -1;
}

// ---- x in the order of the steps. The first 16 halves of a step are of the first 64 elements of a group, the others
// lie in the same way in the other 64.
static void round(int order, const float* x, int64_t ldx, int64_t m, int64_t cols, uint16_t* to) {
    alignas(64) uint16_t places[4][32] = {};
    for (int p = 0; p < 4; ++p)
        for (int i = 0; i < 16; ++i)
            places[p][i] = uint16_t(order == of_pairs ? 4 * i + (p ^ 1) : i / 8 * 32 + p % 2 * 16 + i % 8 * 2 + p / 2);
    for (int64_t t = 0; t < m; ++t)
        for (int64_t c = 0; c < cols; c += 128) {
            __m512i halves[4];                         // 32 each, in order
            QLORA_UNROLL
            for (int i = 0; i < 4; ++i) {
                const __mmask32 lanes = first_lanes(cols - c - i * 32);
                const float* v = x + t * ldx + c + (lanes ? i * 32 : 0);
                halves[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(__mmask16(lanes >> 16), v + 16),
                                                         _mm512_maskz_loadu_ps(__mmask16(lanes), v));
            }
            if (order == of_neighbours) {
                QLORA_UNROLL
                for (int p = 0; p < 4; ++p) _mm512_store_si512(to + ((c / 32 + p) * m + t) * 32, halves[p]);
                continue;
            }
            QLORA_UNROLL
            for (int p = 0; p < 4; ++p) {
                const __m512i at = _mm512_load_si512(places[p]);
                const __m512i low = _mm512_permutex2var_epi16(halves[0], at, halves[1]),
                              high = _mm512_permutex2var_epi16(halves[2], at, halves[3]);
                _mm512_store_si512(to + ((c / 32 + p) * m + t) * 32,
                                   _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1));
            }
        }
}

}  // namespace rows_avx512_bf16_room

constinit const RowsBf16 rows_avx512_bf16{rows_avx512_bf16_room::order, rows_avx512_bf16_room::round,
                                          rows_avx512_bf16_room::blocks, rows_avx512_bf16_room::codes};

}}  // namespace qlora

QLORA_TARGET_END
#endif
