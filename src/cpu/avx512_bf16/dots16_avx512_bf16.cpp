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
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"
#include "src/cpu/avx512_bf16/scales_avx512_bf16.h"

#include <algorithm>
#include <cmath>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace dots16_avx512_bf16_room {

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

constexpr float most_level = 127 * 256;                // around 256 * 128 + 128, so that l is 128 at both ends too
constexpr int zero_level = 256 * 128 + 128;
struct Levels { __m512i high, low; float unit; };      // four times 16 bytes each

static Levels levels_of(const float* codebook) {
    float most = 0;
    for (int i = 0; i < 16; ++i) most = std::fmax(most, std::fabs(codebook[i]));
    const __m512 by = _mm512_set1_ps(most > 0 ? most_level / most : 0);
    const __m512i levels = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(codebook), by)),
                                            _mm512_set1_epi32(zero_level));
    return {_mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(_mm512_srli_epi32(levels, 8))),
            _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(levels)), most / most_level};
}

struct Sum { __m512 products; __m128 offsets; };

// 128 weights of `high` rows, or the first 64 of them, from column 128 * half of a run of 256; scaled: of each 64.
static QLORA_INLINE void add_half(const int high, const int m, const int half, const bool whole, const uint8_t* codes,
                                  int64_t row_bytes, const Levels& levels, const Run16* x, int64_t ldx,
                                  const __m128 (&scaled)[4][gemv_rows], Sum (&sums)[4][gemv_rows]) {
    const int g = 2 * half;
    const __m512i places = _mm512_setr_epi32(g, g, g, g, g, g, g, g, g + 1, g + 1, g + 1, g + 1, g + 1, g + 1, g + 1,
                                             g + 1);
    QLORA_UNROLL
    for (int r = 0; r < high; ++r) {
        const uint8_t* p = codes + r * row_bytes + half * 64;
        const __m512i odd = whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi64(__mmask8(0x0f), p),
                      even = _mm512_srli_epi16(odd, 4);
        const __m512i h[2] = {_mm512_permutexvar_epi8(even, levels.high), _mm512_permutexvar_epi8(odd, levels.high)},
                      l[2] = {_mm512_permutexvar_epi8(even, levels.low), _mm512_permutexvar_epi8(odd, levels.low)};
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            const int16_t* v = x[t * ldx].values + half * 128;         // high bytes: even, odd; low ones: even, odd
            __m512i part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), h[0], _mm512_load_si512(v));
            part = _mm512_slli_epi32(_mm512_dpbusd_epi32(part, h[1], _mm512_load_si512(v + 32)), 8);
            QLORA_UNROLL
            for (int i = 0; i < 2; ++i) {
                part = _mm512_dpbusd_epi32(part, h[i], _mm512_load_si512(v + 64 + i * 32));
                part = _mm512_dpbusd_epi32(part, l[i], _mm512_load_si512(v + i * 32));
            }
            sums[r][t].products = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(part), _mm512_permutexvar_ps(places, _mm512_castps128_ps512(scaled[r][t])),
                sums[r][t].products);
        }
    }
}

// `high` rows side by side times m vectors; both are constants wherever this is inlined.
static QLORA_INLINE void rows_of(const int high, const int m, const uint8_t* codes, const float* scales,
                                 const Levels& levels, int64_t cols, const Run16* x, int64_t ldx, float* out) {
    const int64_t runs = cols / 64, row_bytes = cols / 2;
    Sum sums[4][gemv_rows];
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) sums[i / m][i % m] = {_mm512_setzero_ps(), _mm_setzero_ps()};
    Ahead ahead(codes, high * row_bytes);
    const auto add = [&](const bool whole, const int64_t there) QLORA_INLINED {    // of 256: so many runs of 64
        ahead.ask(high * there * 32);
        ask_near(high, codes, row_bytes, 128);
        __m128 scaled[4][gemv_rows];
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const float* s = scales + r * runs;
            const __m128 scale = whole ? _mm_loadu_ps(s) : _mm_maskz_loadu_ps(__mmask8((1 << there) - 1), s);
            QLORA_UNROLL
            for (int t = 0; t < m; ++t) {
                const Run16& run = x[t * ldx];
                scaled[r][t] = _mm_mul_ps(
                    scale, _mm_shuffle_ps(_mm_load_ps(run.scales), _mm_load_ps(run.scales + 4), 0x88));
                sums[r][t].offsets = _mm_fmadd_ps(scale, _mm_load_ps(run.sums32), sums[r][t].offsets);
            }
        }
        add_half(high, m, 0, whole || there > 1, codes, row_bytes, levels, x, ldx, scaled, sums);
        if (whole || there > 2) add_half(high, m, 1, whole, codes, row_bytes, levels, x, ldx, scaled, sums);
    };
    int64_t c = 0;
    for (; c + 256 <= cols; c += 256, codes += 128, scales += 4, ++x) add(true, 4);
    if (c < cols) add(false, (cols - c) / 64);
    QLORA_UNROLL
    for (int i = 0; i < high * m; ++i) {
        const Sum& sum = sums[i / m][i % m];
        out[i] = 256 * levels.unit *
                 _mm512_reduce_add_ps(_mm512_add_ps(sum.products, _mm512_zextps128_ps512(sum.offsets)));
    }
}

// Scales that were quantized again are looked up just before their rows are read, while the weights that were asked for
// arrive: for 1024 at a time, whose codes were asked for as well, NF4 took 1.1 times as long. Processors see for
// themselves where those go on.
class Scales {
public:
    Scales(const FourBit& quant, int64_t runs, float* memory) : quant_(quant), runs_(runs), memory_(memory) {
        if (doubled()) scales_avx512_bf16::read(quant.absmax_map, planes_);
    }
    QLORA_INLINE const float* of(int64_t row, int64_t rows) const {
        if (doubled()) scales_avx512_bf16::look_up(planes_, quant_, row * runs_, rows * runs_, memory_);
        else if (quant_.block == 64) return quant_.absmax + row * runs_;
        else run_scales(kernels_avx512_bf16, quant_, row * runs_, 0, 1, rows * runs_, memory_);
        return memory_;
    }
private:
    bool doubled() const { return quant_.block == 64 && !quant_.absmax; }
    const FourBit& quant_;
    int64_t runs_;                                     // of a row
    float* memory_;                                    // two rows' worth
    scales_avx512_bf16::Planes planes_;
};

template <int m>
static void codes_of(const WeightRef& w, int64_t first, int64_t rows, const Run16* x, int64_t ldx, float* out) {
    constexpr int high = m <= 2 ? 2 : 1;               // as many as the registers hold
    thread_local Scratch memory;
    const Scales scales(w.quant, w.cols / 64, memory.floats(2 * w.cols / 64));
    const Levels levels = levels_of(w.quant.codebook);
    const uint8_t* data = static_cast<const uint8_t*>(w.data);
    const auto at = [&](int64_t r, const int some) QLORA_INLINED {
        rows_of(some, m, data + (first + r) * (w.cols / 2), scales.of(first + r, some), levels, w.cols, x, ldx,
                out + r * m);
    };
    int64_t r = 0;
    for (; r + high <= rows; r += high) at(r, high);
    for (; r < rows; ++r) at(r, 1);
}

static void codes(const WeightRef& w, int64_t first, int64_t rows, const Run16* x, int64_t ldx, int64_t m,
                  float* out) {
    switch (m) {
        case 1: return codes_of<1>(w, first, rows, x, ldx, out);
        case 2: return codes_of<2>(w, first, rows, x, ldx, out);
        case 3: return codes_of<3>(w, first, rows, x, ldx, out);
        default: return codes_of<4>(w, first, rows, x, ldx, out);
    }
}

}  // namespace dots16_avx512_bf16_room

constinit const Dots16 dots16_avx512_bf16{
    round16_avx512_bf16,      blocks16_avx512_bf16, dots16_avx512_bf16_room::codes, dots16_avx512_bf16_room::order,
    round16_most_avx512_bf16, dots16_avx512_bf16_room::most_level};

}}  // namespace qlora

QLORA_TARGET_END
#endif
