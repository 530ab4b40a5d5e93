// half_rows_avx512.cpp - attention of a few query rows over keys and values in f16 or bf16: each is made floats once,
// in registers, for up to four heads that share it. The bits are those of making them floats first, for
// tile_avx512.cpp.
#include "src/cpu/avx512/kernels_avx512.h"
#include "src/cpu/avx512/lanes_avx512.h"
#include "src/cpu/tile.h"

#include <algorithm>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace half_rows_avx512_room {

using namespace lanes_avx512;
constexpr int most_heads = 4;

static QLORA_INLINE Vector halves16(const bool bf16, const uint16_t* p, const Lanes lanes) {    // zeros elsewhere
    const __m256i h = _mm256_maskz_loadu_epi16(lanes, p);
    return bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)) : _mm512_cvtph_ps(h);
}

// One row times each x: even vectors of it, and odd ones with what is less than a vector, as the dots of
// tile_avx512.cpp add them.
static QLORA_INLINE void row_of(const bool bf16, const int heads, const float* x, int64_t ldx, const uint16_t* row,
                                int64_t n, Vector (&products)[most_heads][16], const int at) {
    Vector sums[most_heads][2];
    QLORA_UNROLL
    for (int h = 0; h < heads; ++h) sums[h][0] = sums[h][1] = zero();
    const auto add = [&](int64_t i, const int odd, const Lanes lanes) QLORA_INLINED {
        const Vector w = halves16(bf16, row + i, lanes);
        QLORA_UNROLL
        for (int h = 0; h < heads; ++h)
            sums[h][odd] = times_plus(w, load(x + h * ldx + i, lanes), sums[h][odd]);
    };
    int64_t i = 0;
    for (; i + 2 * width <= n; i += 2 * width) {
        add(i, 0, Lanes(0xffff));
        add(i + width, 1, Lanes(0xffff));
    }
    if (i + width <= n) { add(i, 0, Lanes(0xffff)); i += width; }
    if (i < n) add(i, 1, first_lanes(n - i));
    QLORA_UNROLL
    for (int h = 0; h < heads; ++h) products[h][at] = plus(sums[h][0], sums[h][1]);
}

// Sixteen rows, or the first of them, share the last additions of their products.
static QLORA_INLINE void dots_of(const bool bf16, const int heads, const float* x, int64_t ldx, const uint16_t* b,
                                 int64_t ldb, int64_t rows, int64_t n, float* y, int64_t ldy) {
    Ahead ahead(b, 0);
    for (int64_t j = 0; j < rows; j += 16) {
        Vector products[most_heads][16];
        for (int r = 0; r < 16; ++r) {
            ahead.ask(2 * n);
            row_of(bf16, heads, x, ldx, b + std::min(j + r, rows - 1) * ldb, n, products, r);
        }
        QLORA_UNROLL
        for (int h = 0; h < heads; ++h) store(y + h * ldy + j, first_lanes(rows - j), totals(products[h]));
    }
}

// `wide` vectors of columns from the first on, of which the last may be cut: `left` are there.
static QLORA_INLINE void columns(const bool bf16, const int heads, const int wide, const float* s, int64_t lds,
                                 const uint16_t* b, int64_t ldb, int64_t rows, int64_t left, float* y, int64_t ldy) {
    Vector sums[most_heads][4];
    QLORA_UNROLL
    for (int k = 0; k < heads * wide; ++k)
        sums[k / wide][k % wide] =
            load(y + k / wide * ldy + k % wide * width, first_lanes(left - k % wide * width));
    Ahead ahead(b, 0);
    for (int64_t j = 0; j < rows; ++j, b += ldb) {
        ahead.ask(2 * width * wide);
        QLORA_UNROLL
        for (int i = 0; i < wide; ++i) {
            const Vector w = halves16(bf16, b + i * width, first_lanes(wide == 4 ? width : left));
            QLORA_UNROLL
            for (int h = 0; h < heads; ++h) sums[h][i] = times_plus(broadcast(s + h * lds + j), w, sums[h][i]);
        }
    }
    QLORA_UNROLL
    for (int k = 0; k < heads * wide; ++k)
        store(y + k / wide * ldy + k % wide * width, first_lanes(left - k % wide * width), sums[k / wide][k % wide]);
}

static QLORA_INLINE void mix_of(const bool bf16, const int heads, const float* s, int64_t lds, const uint16_t* b,
                                int64_t ldb, int64_t rows, int64_t n, float* y, int64_t ldy) {
    int64_t i = 0;
    for (; i + 4 * width <= n; i += 4 * width)
        columns(bf16, heads, 4, s, lds, b + i, ldb, rows, 4 * width, y + i, ldy);
    for (; i < n; i += width) columns(bf16, heads, 1, s, lds, b + i, ldb, rows, n - i, y + i, ldy);
}

// f(first, heads) for up to four heads at a time, as a constant.
template <class F>
static QLORA_INLINE void for_heads(int64_t heads, const F& f) {
    int64_t h = 0;
    for (; h + most_heads <= heads; h += most_heads) f(h, most_heads);
    switch (heads - h) {
        case 3: return f(h, 3);
        case 2: return f(h, 2);
        case 1: return f(h, 1);
        default: return;
    }
}

static void dots(DType type, const float* x, int64_t ldx, int64_t heads, const uint16_t* b, int64_t ldb, int64_t rows,
                 int64_t n, float* y, int64_t ldy) {
    for_heads(heads, [&](int64_t h, const int some) QLORA_INLINED {
        if (type == DType::bf16) dots_of(true, some, x + h * ldx, ldx, b, ldb, rows, n, y + h * ldy, ldy);
        else dots_of(false, some, x + h * ldx, ldx, b, ldb, rows, n, y + h * ldy, ldy);
    });
}

static void mix(DType type, const float* s, int64_t lds, int64_t heads, const uint16_t* b, int64_t ldb, int64_t rows,
                int64_t n, float* y, int64_t ldy) {
    for_heads(heads, [&](int64_t h, const int some) QLORA_INLINED {
        if (type == DType::bf16) mix_of(true, some, s + h * lds, lds, b, ldb, rows, n, y + h * ldy, ldy);
        else mix_of(false, some, s + h * lds, lds, b, ldb, rows, n, y + h * ldy, ldy);
    });
}

}  // namespace half_rows_avx512_room

constinit const HalfRows half_rows_avx512{half_rows_avx512_room::dots, half_rows_avx512_room::mix};

}}  // namespace qlora

QLORA_TARGET_END
#endif
