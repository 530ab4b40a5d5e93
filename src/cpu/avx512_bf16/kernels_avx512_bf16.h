// kernels_avx512_bf16.h - what the set with products of bf16 adds to AVX-512.
#pragma once
#include "src/cpu/kernels.h"

namespace qlora { inline namespace QLORA_ABI {

extern const Kernels kernels_avx512_bf16;
extern const GemmKernels gemm_avx512_bf16;
extern const RowsBf16 rows_avx512_bf16;
extern const Dots16 dots16_avx512_bf16;
void round16_avx512_bf16(const float* x, int64_t cols, Order16, Run16* to);
void blocks16_avx512_bf16(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                          int64_t ldx, int64_t m, float* out);
void integers16_avx512_bf16(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                            int64_t ldx, int64_t m, float* out);
void double_scales_avx512_bf16(const FourBit&, int64_t first, int64_t count, float* scales);

}}  // namespace qlora
