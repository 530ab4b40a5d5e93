// kernels_avx2.h - the parts of the AVX2 set, for its table and for the sets that take some of them.
#pragma once
#include "src/cpu/kernels.h"
#include "src/cpu/vectors.h"

namespace qlora { inline namespace QLORA_ABI {

extern const Kernels kernels_avx2;
extern const Vec vec_avx2;
extern const Tile tile_avx2;
extern const GemmKernels gemm_avx2;
extern const FourBitKernels four_bit_avx2;
extern const Dots16 dots16_avx2;
extern const DropRuns drop_avx2;
extern const BlockDecoder f16_decoder_avx2, bf16_decoder_avx2;
extern const BlockDots block_dots_avx2, half_dots_avx2;
void round16_avx2(const float* x, int64_t cols, Order16, Run16* to);
void blocks16_avx2(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out);
void integers16_avx2(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                     int64_t ldx, int64_t m, float* out);
BlockDecoder block_decoder_avx2(DType);                // of types in blocks
BlockDecoder decoder_avx2(DType);                      // of every type

}}  // namespace qlora
