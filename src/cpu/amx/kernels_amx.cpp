// kernels_amx.cpp - the table of AMX: AVX-512 with bf16 but for larger products of bf16.
#include "src/cpu/amx/kernels_amx.h"

#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx512/kernels_avx512.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"

#if defined(QLORA_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace qlora { inline namespace QLORA_ABI {

#if defined(QLORA_AMX)
namespace kernels_amx_room {

bool in_processor() {
    constexpr unsigned bf16 = 1u << 22, tiles = 1u << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bf16) && (d & tiles);
}

// Read only where there is AVX-512, and so XGETBV.
bool saved_by_system() {
    constexpr unsigned configuration = 1u << 17, data = 1u << 18;
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & configuration) && (low & data);
}

// Linux has a process ask once for the 8 KiB that tiles add to what is saved of each thread that uses them; all threads
// have it then. It refuses where a thread has a stack for signals that would be too small for them, and after it such
// stacks (under some 12 KB).
bool permitted() {
    constexpr long ask_for_state = 0x1023, tile_data = 18;     // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}

bool supported() {
    static const bool all = kernels_avx512_bf16.supported() && in_processor() && saved_by_system() && permitted();
    return all;
}

}  // namespace kernels_amx_room

constinit const Kernels kernels_amx{.name = "amx",
                                    .supported = kernels_amx_room::supported,
                                    .worth_waking = 50'000,
                                    .vec = vec_avx512,
                                    .tile = tile_avx512,
                                    .gemm = gemm_avx512,
                                    .gemm_bf16 = &gemm_amx,
                                    .gemm_split = &gemm_split_amx,
                                    .four_bit = &four_bit_avx512,
                                    .double_scales = double_scales_avx512_bf16,
                                    .decoder = decoder_avx2,
                                    .dots = dots_avx512,
                                    .dots16 = &dots16_avx512_bf16,
                                    .rows_bf16 = &rows_avx512_bf16,
                                    .drop = &drop_avx512};
#else
constinit const Kernels kernels_amx = kernels_of_others("amx");
#endif

}}  // namespace qlora
