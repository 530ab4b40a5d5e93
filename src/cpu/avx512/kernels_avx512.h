// kernels_avx512.h - the parts of the AVX-512 set, for its table and for the sets that take some of them.
#pragma once
#include "src/cpu/kernels.h"
#include "src/cpu/vectors.h"

namespace qlora { inline namespace QLORA_ABI {

extern const Kernels kernels_avx512;
extern const Vec vec_avx512;
extern const Tile tile_avx512;
extern const HalfRows half_rows_avx512;
extern const GemmKernels gemm_avx512;
extern const FourBitKernels four_bit_avx512;
extern const DropRuns drop_avx512;
extern const BlockDots block_dots_avx512;
BlockDots dots_avx512(DType);                          // of every type

}}  // namespace qlora
