// tile.h - products of small matrices that already lie in cache, for operations that tile themselves (attention): no
// threads, no packing.
//
// The caller pads its tiles, so that the loops have no edges: a tile is a scratch array whose rows and columns are
// rounded up.
#pragma once
#include "src/cpu/cpu.h"

namespace qlora { inline namespace QLORA_ABI {

// what m and n of a product are multiples of: 16 vectors of 512 bits hold the sums
constexpr int64_t tile_rows = 8, tile_cols = 32;
inline int64_t tile_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// dots and mix of rows in f16 or bf16, the keys and values of a cache, with several x or y that share them: a head
// each, whose bytes do not depend on how many others there are.
struct HalfRows {
    // y[h ldy + j] = x[h ldx ..] . b[j, :]
    void (*dots)(DType, const float* x, int64_t ldx, int64_t heads, const uint16_t* b, int64_t ldb, int64_t rows,
                 int64_t n, float* y, int64_t ldy);
    // y[h ldy ..] += sum over j of s[h lds + j] b[j, :]
    void (*mix)(DType, const float* s, int64_t lds, int64_t heads, const uint16_t* b, int64_t ldb, int64_t rows,
                int64_t n, float* y, int64_t ldy);
};

struct Tile {
    // c {m, n} = a b, or += with `add`; a(i, p) lies at a[i * a_row + p * a_step] {m, k}, b {k, n}. Sums run over p in
    // order.
    void (*product)(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add);
    // y[j] = x . b[j, :], for each of `rows` rows; any n
    void (*dots)(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y);
    // y[:] += sum over j of s[j] b[j, :]; any n
    void (*mix)(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y);
    const HalfRows* halves = nullptr;                  // null: rows of halves are made floats first
};

// to {cols, ldto} = transpose of from {rows, cols}, four by four where the machine allows.
void transpose(const float* from, int64_t ld, int64_t rows, int64_t cols, float* to, int64_t ldto);

}}  // namespace qlora
