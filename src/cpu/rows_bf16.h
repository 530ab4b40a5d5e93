// rows_bf16.h - rows of stored weights times up to sixteen vectors in bf16: the products of generation, of one sequence
// or of several, with Compute::bf16.
//
// x is rounded to bf16, and a weight too: as a whole where scales are multiplied into the levels of its codes (4-bit
// codes), its code only where that is exact and the scale waits for some products (blocks). Products are summed in f32.
//     w . x = sum over groups of  bf16(d level[code]) . bf16(x)      or  d (code . bf16(x))
// A code is made a number once for all vectors. The sum of a row and a vector has the same order for every number of
// vectors.
#pragma once
#include "src/cpu/gemm.h"

namespace qlora { inline namespace QLORA_ABI {

struct RowsBf16 {
    // In which order products with such weights take x: 0, 1 or 2, or -1: they do not exist. 4-bit codes only with
    // has_runs_of_64.
    int (*order)(DType);
    // m <= most_gemv_rows vectors, ldx floats apart, to m * size(cols) halves in that order
    void (*round)(int order, const float* x, int64_t ldx, int64_t m, int64_t cols, uint16_t* to);
    // out[r * m + t] = row r . x[t]
    void (*blocks)(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const uint16_t* x,
                   int64_t m, float* out);
    void (*codes)(const uint8_t* codes, const float* scales, const float* codebook, int64_t rows, int64_t cols,
                  const uint16_t* x, int64_t m, float* out);
    static int64_t size(int64_t cols) { return (cols + 127) / 128 * 128; }
};

}}  // namespace qlora
