// isa.cpp - which instruction set the CPU kernels use: the best of this machine, or a lower one named by QLORA_ISA.
#include "src/cpu/cpu.h"

#include <cstdlib>

namespace qlora { inline namespace QLORA_ABI {
namespace isa_room {

Isa of_machine() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return Isa::avx512_bf16;
    if (avx512) return Isa::avx512;
    if (avx2) return Isa::avx2;
#endif
    return Isa::scalar;
}

Isa by_name(std::string_view name, const char* where) {
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16})
        if (name_of(isa) == name) return isa;
    fail(Errc::argument, where, " is '", name, "', expected scalar, avx2, avx512 or avx512_bf16");
}

Isa limited_by_environment(Isa machine) {
    const char* wish = std::getenv("QLORA_ISA");
    if (!wish || !*wish) return machine;
    return std::min(by_name(wish, "QLORA_ISA"), machine);
}

Isa machine() {
    static const Isa best = of_machine();
    return best;
}

}  // namespace isa_room

Isa best_isa() { return isa_room::limited_by_environment(isa_room::machine()); }

Isa isa_named(std::string_view name) {
    if (name.empty()) return best_isa();
    const Isa isa = isa_room::by_name(name, "the instruction set");
    if (isa > isa_room::machine())
        fail(Errc::argument, "this machine has no ", name, "; its best is ", name_of(isa_room::machine()));
    return isa;
}

std::string_view name_of(Compute compute) {
    return compute == Compute::bf16 ? "bf16" : compute == Compute::mixed ? "mixed" : "f32";
}

std::string_view name_of(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::avx512_bf16: return "avx512_bf16";
        default: return "scalar";
    }
}

}}  // namespace qlora
