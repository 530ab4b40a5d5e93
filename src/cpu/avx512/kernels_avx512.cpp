// kernels_avx512.cpp - the table of AVX-512. Blocks are decoded, and multiplied with integers, as AVX2 does it: a block
// of 32 weights fills its registers as it is.
#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx512/kernels_avx512.h"

namespace qlora { inline namespace QLORA_ABI {

#if defined(__x86_64__)
namespace kernels_avx512_room {

bool supported() {
    return kernels_avx2.supported() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

}  // namespace kernels_avx512_room

BlockDots dots_avx512(DType type) {
#define QLORA_SAME(t) || type == DType::t
    return false QLORA_BLOCK_DOT_TYPES(QLORA_SAME) ? block_dots_avx512 : nullptr;
#undef QLORA_SAME
}

constinit const Kernels kernels_avx512{.name = "avx512",
                                       .supported = kernels_avx512_room::supported,
                                       .worth_waking = 50'000,
                                       .vec = vec_avx512,
                                       .tile = tile_avx512,
                                       .gemm = gemm_avx512,
                                       .four_bit = &four_bit_avx512,
                                       .decoder = decoder_avx2,
                                       .dots = dots_avx512,
                                       .dots16 = &dots16_avx2,
                                       .drop = &drop_avx512};
#else
constinit const Kernels kernels_avx512 = kernels_of_others("avx512");
#endif

}}  // namespace qlora
