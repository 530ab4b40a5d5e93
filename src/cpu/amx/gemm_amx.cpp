// gemm_amx.cpp - packing and the tiles of bf16 with AMX: 32 x 32.
//
// A tile register holds 16 rows of 64 bytes. One instruction adds the product of two of them, 16 x 32 and 32 x 16 of
// bf16, to 16 x 16 sums in f32. Four of the eight registers are sums here, so that four loads do for four products.
// The left factor is packed[depth / 32][rows][32], the right one in pairs, packed[depth / 2][width][2].
//
// A float is the sum of two parts of bf16, high and low, but for at most 2^-16 of it: gemm_split_amx adds
//     high high' + high low' + low high'
// where each 32 of depth are packed as their high parts, then their low ones. What is left out, low low' and what the
// low parts leave, is at most 3.1 * 2^-16 of a product: |low| <= 2^-8 |x| and |x - high - low| <= 2^-16 |x|.
#include "src/cpu/amx/kernels_amx.h"
#include "src/cpu/avx512_bf16/pack_avx512_bf16.h"

#if defined(QLORA_AMX)
QLORA_TARGET_BEGIN(amx)

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_amx_room {

using namespace gemm_tiles_avx512;
using namespace pack_avx512_bf16;

constexpr int64_t side = 32, step = 32;                // of the tile; of depth
constexpr int64_t bytes_of_step = side * step * 2;     // of a part of either factor

struct alignas(64) Configuration {                     // as the instruction reads it
    uint8_t palette, first_row, unused[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
constinit const Configuration configuration{
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

template <int parts>
static void left_across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    char* out = static_cast<char*>(packed);
    for (int64_t d = 0; d < depth; d += step) {
        QLORA_UNROLL
        for (int part = 0; part < parts; ++part) {
            for (int64_t l = 0; l < width; ++l, out += step * 2) {
                const int64_t deep = l < lines ? depth - d : 0;
                _mm512_store_si512(out, narrowed(part, source + (deep ? l * ld : 0) + d, deep));
            }
        }
    }
}

template <int parts>
static void left_along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    char* out = static_cast<char*>(packed);
    for (int64_t d = 0; d < depth; d += step) {
        QLORA_UNROLL
        for (int part = 0; part < parts; ++part) {
            for (int64_t l = 0; l < width; l += 16, out += 16 * step * 2) {
                __m512i r[16];
                QLORA_UNROLL
                for (int i = 0; i < 16; ++i)
                    r[i] = pair_along(part, source + (d + 2 * i) * ld + l, ld, depth - d - 2 * i,
                                      first_lanes(lines - l));
                transpose(r);
                QLORA_UNROLL
                for (int i = 0; i < 16; ++i) _mm512_store_si512(out + i * step * 2, r[i]);
            }
        }
    }
}

// tall and wide: there is a second half of rows or columns. Both are constants wherever this is inlined; no sum depends
// on them. Registers 0 to 3 are the sums, 4 and 5 hold the left factor, 6 and 7 the right one.
struct Halves { bool tall, wide; };

static QLORA_INLINE void load_left(const Halves has, const char* a) {
    _tile_loadd(4, a, 64);
    if (has.tall) _tile_loadd(5, a + 1024, 64);
}
static QLORA_INLINE void load_right(const Halves has, const char* b) {
    _tile_loadd(6, b, 128);
    if (has.wide) _tile_loadd(7, b + 64, 128);
}
static QLORA_INLINE void add_products(const Halves has) {
    _tile_dpbf16ps(0, 4, 6);
    if (has.wide) _tile_dpbf16ps(1, 4, 7);
    if (has.tall) _tile_dpbf16ps(2, 5, 6);
    if (has.tall && has.wide) _tile_dpbf16ps(3, 5, 7);
}

static QLORA_INLINE void sum_up(const int parts, const Halves has, const char* a, const char* b, int64_t depth,
                                float (&sums)[side][side]) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t d = 0; d < depth; d += step, a += parts * bytes_of_step, b += parts * bytes_of_step) {
        load_left(has, a);
        if (parts == 2) {
            load_right(has, b + bytes_of_step);
            add_products(has);
        }
        load_right(has, b);
        add_products(has);
        if (parts == 2) {
            load_left(has, a + bytes_of_step);
            add_products(has);
        }
    }
    _tile_stored(0, sums[0], sizeof sums[0]);
    if (has.wide) _tile_stored(1, sums[0] + 16, sizeof sums[0]);
    if (has.tall) _tile_stored(2, sums[16], sizeof sums[0]);
    if (has.tall && has.wide) _tile_stored(3, sums[16] + 16, sizeof sums[0]);
}

template <int parts>
static void tile(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta) {
    const char *a = static_cast<const char*>(left), *b = static_cast<const char*>(panel);
    const bool tall = rows > 16, wide = cols > 16;
    alignas(64) float sums[side][side];
    __asm__ volatile("" ::: "memory");                 // g++ does not say that loads of tiles read memory
    prefetch(c, ldc, rows);
    if (tall && wide) sum_up(parts, {true, true}, a, b, depth, sums);
    else if (tall) sum_up(parts, {true, false}, a, b, depth, sums);
    else if (wide) sum_up(parts, {false, true}, a, b, depth, sums);
    else sum_up(parts, {false, false}, a, b, depth, sums);
    const __mmask16 first = first_lanes(cols), second = first_lanes(cols - 16);
    for (int64_t r = 0; r < rows; ++r) {
        put(c + r * ldc, _mm512_load_ps(sums[r]), first, alpha, beta);
        if (wide) put(c + r * ldc + 16, _mm512_load_ps(sums[r] + 16), second, alpha, beta);
    }
}

static void begin() { _tile_loadconfig(&configuration); }
static void end() { _tile_release(); }                 // what is not in use need not be saved

// 128 KiB of either factor at a time: tiles are so fast that rows of c, which lie further away, must be touched seldom.
template <int parts>
constexpr GemmKernels kernels_of_parts() {
    return {.rows = side,
            .cols = side,
            .granule = step,
            .bytes = 2 * parts,
            .stretch = 2048 / parts,
            .left_across = left_across<parts>,
            .left_along = left_along<parts>,
            .right_across = across<step, parts>,
            .right_along = along<step, parts>,
            .tile = tile<parts>,
            .begin = begin,
            .end = end};
}

}  // namespace gemm_amx_room

constinit const GemmKernels gemm_amx = gemm_amx_room::kernels_of_parts<1>(),
                            gemm_split_amx = gemm_amx_room::kernels_of_parts<2>();

}}  // namespace qlora

QLORA_TARGET_END
#endif
