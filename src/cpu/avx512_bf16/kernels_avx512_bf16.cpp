// kernels_avx512_bf16.cpp - the table of AVX-512 with products of bf16: AVX-512 but for those.
#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx512/kernels_avx512.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"

namespace qlora { inline namespace QLORA_ABI {

#if defined(__x86_64__)
namespace kernels_avx512_bf16_room {

// Products of bf16 come with VNNI, and but for one generation (Cooper Lake, which takes AVX-512) with VBMI and GFNI.
bool supported() {
    return kernels_avx512.supported() && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("gfni");
}

// Intel's processors begin such a product every other cycle, and two of floats every cycle: half the multiply-adds.
bool pays(std::string_view vendor) { return vendor != "GenuineIntel"; }

}  // namespace kernels_avx512_bf16_room

constinit const Kernels kernels_avx512_bf16{.name = "avx512_bf16",
                                            .supported = kernels_avx512_bf16_room::supported,
                                            .worth_waking = 50'000,
                                            .vec = vec_avx512,
                                            .tile = tile_avx512,
                                            .gemm = gemm_avx512,
                                            .gemm_bf16 = &gemm_avx512_bf16,
                                            .bf16_pays = kernels_avx512_bf16_room::pays,
                                            .four_bit = &four_bit_avx512,
                                            .double_scales = double_scales_avx512_bf16,
                                            .decoder = decoder_avx2,
                                            .dots = dots_avx512,
                                            .dots16 = &dots16_avx512_bf16,
                                            .rows_bf16 = &rows_avx512_bf16,
                                            .drop = &drop_avx512};
#else
constinit const Kernels kernels_avx512_bf16 = kernels_of_others("avx512_bf16");
#endif

}}  // namespace qlora
