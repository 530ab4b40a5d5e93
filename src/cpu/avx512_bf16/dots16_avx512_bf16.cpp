// dots16_avx512_bf16.cpp - products of 4-bit codes and 16-bit integers with an instruction that adds four products of
// an unsigned and a signed byte to a sum (VNNI). dots16.h has the formula; blocks16_avx512_bf16.cpp has the blocks, and
// says how x is kept: v = 256 high + low.
//
// The levels of the codes are any sixteen floats: as integers of 16 bits, unit * (256 h + l - zero), whose bytes two
// tables give. Of 128 weights of a row one register holds the even nibbles, another one the odd ones, and one
// instruction looks 64 bytes up, by six bits each: the tables come four times, so a neighbour's two bits may stay.
// Of the four products of bytes the least is left out,
//     (256 h + l) v = 65536 h high + 256 (h low + l high) + l low,
// but for the middle of l, 128, times the sum of the low bytes. What is missing, (l - 128) low, is as little as what
// the rounding of v takes, and nothing for a level of 0 or the largest one.
#include "src/cpu/avx512_bf16/rows16_avx512_bf16.h"
#include "src/cpu/avx512_bf16/scales_avx512_bf16.h"

#include <algorithm>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace dots16_avx512_bf16_room {

static Order16 order(DType type) {
    switch (type) {
        case DType::q2_k:
        case DType::q3_k: return Order16::sixteens;
        case DType::q4_k:
        case DType::q5_k:
        case DType::q6_k: return Order16::integers;
        default: return Order16::blocks;
    }
}

constexpr float most_level = 127 * 256;                // around 256 * 128 + 128, so that l is 128 at both ends too
constexpr int zero_level = 256 * 128 + 128;
struct Levels { __m512i high, low; float unit; };      // four times 16 bytes each

static Levels levels_of(const float* codebook) {
    const __m512 book = _mm512_loadu_ps(codebook);
    const float most = _mm512_reduce_max_ps(_mm512_abs_ps(book));
    const __m512 by = _mm512_set1_ps(most > 0 ? most_level / most : 0);
    const __m512i levels =
        _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(book, by)), _mm512_set1_epi32(zero_level));
    return {_mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(_mm512_srli_epi32(levels, 8))),
            _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(levels)), most / most_level};
}

struct Sum { __m512 products; __m128 offsets; };

// 128 codes, whose even ones are the upper nibbles, times the vectors in `half` of a run.
struct Bytes { __m512i high[2], low[2]; };             // of the even levels, of the odd ones
static QLORA_INLINE Bytes looked_up(__m512i codes, const Levels& levels) {
    const __m512i even = _mm512_srli_epi16(codes, 4);
    return {{_mm512_permutexvar_epi8(even, levels.high), _mm512_permutexvar_epi8(codes, levels.high)},
            {_mm512_permutexvar_epi8(even, levels.low), _mm512_permutexvar_epi8(codes, levels.low)}};
}
static QLORA_INLINE __m512 products(const Bytes& w, const Run16& x, const int half) {
    const int16_t* v = x.values + half * 128;          // high bytes: even, odd; low ones: even, odd
    __m512i part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.high[0], _mm512_load_si512(v));
    part = _mm512_slli_epi32(_mm512_dpbusd_epi32(part, w.high[1], _mm512_load_si512(v + 32)), 8);
    QLORA_UNROLL
    for (int i = 0; i < 2; ++i) {
        part = _mm512_dpbusd_epi32(part, w.high[i], _mm512_load_si512(v + 64 + i * 32));
        part = _mm512_dpbusd_epi32(part, w.low[i], _mm512_load_si512(v + i * 32));
    }
    return _mm512_cvtepi32_ps(part);
}
static QLORA_INLINE __m512 spread(__m128 scales, const int half) {
    const int g = 2 * half;
    const __m512i places = _mm512_setr_epi32(g, g, g, g, g, g, g, g, g + 1, g + 1, g + 1, g + 1, g + 1, g + 1, g + 1,
                                             g + 1);
    return _mm512_permutexvar_ps(places, _mm512_castps128_ps512(scales));
}
static QLORA_INLINE __m128 scales_of(const Run16& x) {             // of each 64, which have theirs twice
    return _mm_shuffle_ps(_mm_load_ps(x.scales), _mm_load_ps(x.scales + 4), 0x88);
}

// 128 weights of each row, or the first 64 of them, from column 128 * half of a run of 256 on.
static QLORA_INLINE void add_half(const int high, const int m, const int half, const bool whole, const uint8_t* codes,
                                  int64_t row_bytes, const Levels& levels, const Run16* x, int64_t ldx,
                                  const __m128 (&scaled)[2][gemv_rows], Sum (&sums)[2][gemv_rows]) {
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        const uint8_t* p = codes + r * row_bytes + half * 64;
        const Bytes w =
            looked_up(whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi64(__mmask8(0x0f), p), levels);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t)
            sums[r][t].products = _mm512_fmadd_ps(products(w, x[t * ldx], half), spread(scaled[r][t], half),
                                                  sums[r][t].products);
    }
}

// The last 64 weights of one or two rows, side by side: x has them twice (round16_avx512_bf16.cpp).
static QLORA_INLINE void add_last_64(const int high, const int m, const uint8_t* codes, int64_t row_bytes,
                                     const float* scales, int64_t runs, const Levels& levels, const Run16* x,
                                     int64_t ldx, Sum (&sums)[2][gemv_rows]) {
    __m512i both = _mm512_maskz_loadu_epi64(__mmask8(0x0f), codes);
    __m128 scale = _mm_load_ss(scales);
    if (high == 2) {
        both = _mm512_inserti64x4(both, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + row_bytes)), 1);
        scale = _mm_unpacklo_ps(scale, _mm_load_ss(scales + runs));
    }
    const Bytes w = looked_up(both, levels);
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const Run16& run = x[t * ldx];
        const __m128 offsets = _mm_mul_ps(scale, _mm_load_ps(run.sums32));
        rows16_avx512_bf16::add_halves(high,
                                       _mm512_mul_ps(products(w, run, 0), spread(_mm_mul_ps(scale, scales_of(run)), 0)),
                                       sums[0][t].products, sums[1][t].products);
        sums[0][t].offsets = _mm_add_ss(sums[0][t].offsets, offsets);
        if (high == 2) sums[1][t].offsets = _mm_add_ss(sums[1][t].offsets, _mm_movehdup_ps(offsets));
    }
}

// `high` rows side by side times m vectors; both are constants wherever this is inlined.
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* codes, const float* scales,
                                 const Levels& levels, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    const int64_t runs = cols / 64, row_bytes = cols / 2;
    Sum sums[2][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm512_setzero_ps(), _mm_setzero_ps()};
    Ahead ahead(codes, high * row_bytes);
    const auto add = [&](const bool whole, const int64_t there) QLORA_INLINED {    // of 256: so many runs of 64
        ahead.ask(high * there * 32);
        ask_near(high, codes, row_bytes, 128);
        __m128 scaled[2][gemv_rows];
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const float* s = scales + r * runs;
            const __m128 scale = whole ? _mm_loadu_ps(s) : _mm_maskz_loadu_ps(__mmask8((1 << there) - 1), s);
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                scaled[r][t] = _mm_mul_ps(scale, scales_of(x[t * ldx]));
                sums[r][t].offsets = _mm_fmadd_ps(scale, _mm_load_ps(x[t * ldx].sums32), sums[r][t].offsets);
            }
        }
        add_half(high, m, 0, true, codes, row_bytes, levels, x, ldx, scaled, sums);
        if (whole || there > 2) add_half(high, m, 1, whole, codes, row_bytes, levels, x, ldx, scaled, sums);
    };
    int64_t c = 0;
    for (; c + 256 <= cols; c += 256, codes += 128, scales += 4, ++x) add(true, 4);
    if (cols - c == 64) add_last_64(high, m, codes, row_bytes, scales, runs, levels, x, ldx, sums);
    else if (c < cols) add(false, (cols - c) / 64);
    __m512 totals[2 * gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i)
        totals[i] = _mm512_add_ps(sums[i / m][i % m].products, _mm512_zextps128_ps512(sums[i / m][i % m].offsets));
    rows16_avx512_bf16::put_totals(high * m, totals, 256 * levels.unit, out);
}

// Of a few rows at a time: those that were quantized again are looked up, up to 64 at once, just before their rows are
// read, while the weights that were asked for arrive; for 1024 at a time, whose codes were asked for as well, NF4 took
// 1.1 times as long. Processors see for themselves where those go on.
class Scales {
public:
    Scales(const FourBit& quant, int64_t runs, Scratch& memory) : quant_(quant), runs_(runs) {
        if (quant.block == 64 && quant.absmax) return;
        memory_ = memory.floats(some() * runs);
        if (doubled()) scales_avx512_bf16::read(quant.absmax_map, planes_);
    }
    int64_t some() const { return std::max<int64_t>(64 / runs_ / 2, 1) * 2; }    // rows
    const float* of(int64_t row, int64_t rows) const {
        if (doubled()) scales_avx512_bf16::look_up(planes_, quant_, row * runs_, rows * runs_, memory_);
        else if (!memory_) return quant_.absmax + row * runs_;
        else run_scales(kernels_avx512_bf16, quant_, row * runs_, 0, 1, rows * runs_, memory_);
        return memory_;
    }
private:
    bool doubled() const { return quant_.block == 64 && !quant_.absmax; }
    const FourBit& quant_;
    int64_t runs_;                                     // of a row
    float* memory_ = nullptr;                          // null: they are floats where they are
    scales_avx512_bf16::Planes planes_;
};

static void codes(const WeightRef& w, int64_t first, int64_t rows, const Run16* x, int64_t ldx, int64_t m,
                  float* out) {
    thread_local Scratch memory;
    const int64_t runs = w.cols / 64, row_bytes = w.cols / 2;
    const Scales scales(w.quant, runs, memory);
    const Levels levels = levels_of(w.quant.codebook);
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + first * row_bytes;
    for (int64_t row = 0; row < rows; row += scales.some()) {
        const int64_t some = std::min(scales.some(), rows - row);
        const float* of = scales.of(first + row, some);
        rows16_avx512_bf16::for_rows(some, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
            rows_of(high, many, data + (row + r) * row_bytes, of + r * runs, levels, w.cols, x, ldx,
                    out + (row + r) * many);
        });
    }
}

}  // namespace dots16_avx512_bf16_room

constinit const Dots16 dots16_avx512_bf16{
    round16_avx512_bf16, blocks16_avx512_bf16, dots16_avx512_bf16_room::codes, dots16_avx512_bf16_room::order,
    dots16_avx512_bf16_room::most_level};

}}  // namespace qlora

QLORA_TARGET_END
#endif
