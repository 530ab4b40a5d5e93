// kernels_avx2.cpp - the table of AVX2 with FMA and halves.
#include "src/cpu/avx2/kernels_avx2.h"

namespace qlora { inline namespace QLORA_ABI {

#if defined(__x86_64__)
namespace kernels_avx2_room {

bool supported() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

BlockDots dots(DType type) {
    if (type == DType::f16 || type == DType::bf16) return half_dots_avx2;
#define QLORA_SAME(t) || type == DType::t
    return false QLORA_LATE_DOT_TYPES(QLORA_SAME) QLORA_BLOCK_ROW_TYPES(QLORA_SAME) ? block_dots_avx2 : nullptr;
#undef QLORA_SAME
}

}  // namespace kernels_avx2_room

BlockDecoder decoder_avx2(DType type) {
    return type == DType::f16 ? f16_decoder_avx2 : type == DType::bf16 ? bf16_decoder_avx2 : block_decoder_avx2(type);
}

constinit const Kernels kernels_avx2{.name = "avx2",
                                     .supported = kernels_avx2_room::supported,
                                     .worth_waking = 10'000,
                                     .vec = vec_avx2,
                                     .tile = tile_avx2,
                                     .gemm = gemm_avx2,
                                     .four_bit = &four_bit_avx2,
                                     .decoder = decoder_avx2,
                                     .dots = kernels_avx2_room::dots,
                                     .dots16 = &dots16_avx2,
                                     .drop = &drop_avx2};
#else
constinit const Kernels kernels_avx2 = kernels_of_others("avx2");
#endif

}}  // namespace qlora
