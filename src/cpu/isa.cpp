// isa.cpp - which instruction set the CPU kernels use: the best of this machine, or a lower one named by QLORA_ISA.
#include "src/cpu/cpu.h"

#include <cstdlib>

namespace qlora::inline v0_1 {
namespace isa_room {

Isa of_machine() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return Isa::avx512_bf16;
    if (avx512) return Isa::avx512;
    if (avx2) return Isa::avx2;
#endif
    return Isa::scalar;
}

Isa limited_by_environment(Isa machine) {
    const char* wish = std::getenv("QLORA_ISA");
    if (!wish || !*wish) return machine;
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
        if (name_of(isa) == wish) return std::min(isa, machine);
    }
    fail(Errc::argument, "QLORA_ISA is '", wish, "', expected scalar, avx2, avx512 or avx512_bf16");
}

}  // namespace isa_room

Isa best_isa() {
    static const Isa machine = isa_room::of_machine();
    return isa_room::limited_by_environment(machine);
}

std::string_view name_of(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::avx512_bf16: return "avx512_bf16";
        default: return "scalar";
    }
}

}  // namespace qlora
