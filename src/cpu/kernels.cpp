// kernels.cpp - the list of instruction sets, and which of them is used: the best of this machine, or one named by
// QLORA_ISA or by the caller.
#include "src/cpu/kernels.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace qlora { inline namespace QLORA_ABI {

extern const Kernels kernels_amx, kernels_avx512_bf16, kernels_avx512, kernels_avx2, kernels_portable;

namespace kernels_room {

// In order of preference. A new set is a line here and a folder.
constexpr const Kernels* list[] = {
    &kernels_amx,
    &kernels_avx512_bf16,
    &kernels_avx512,
    &kernels_avx2,
    &kernels_portable,
};

const Kernels& of_machine() {
    static const Kernels* const best = *std::find_if(std::begin(list), std::end(list) - 1,
                                                     [](const Kernels* set) { return set->supported(); });
    return *best;
}

// "a, b or c", from the last of the list to the first.
std::string names() {
    std::string out;
    for (size_t i = std::size(list); i-- > 0;)
        out += std::string(list[i]->name) + (i > 1 ? ", " : i == 1 ? " or " : "");
    return out;
}

const Kernels& by_name(std::string_view name, const char* where) {
    for (const Kernels* set : list)
        if (set->name == name) return *set;
    fail(Errc::argument, where, " is '", name, "', expected ", names());
}

// Of this processor, as CPUID spells it; elsewhere empty.
std::string_view vendor() {
#if defined(__x86_64__)
    static const std::string name = [] {
        unsigned most = 0, words[3] = {};
        char spelled[12] = {};
        if (__get_cpuid(0, &most, &words[0], &words[2], &words[1])) std::memcpy(spelled, words, sizeof spelled);
        return std::string(spelled, sizeof spelled);
    }();
    return name;
#else
    return {};
#endif
}

}  // namespace kernels_room

std::span<const Kernels* const> all_kernels() { return kernels_room::list; }

// QLORA_ISA lowers: what this machine has not, is not asked for.
const Kernels& best_kernels() {
    using namespace kernels_room;
    const char* wish = std::getenv("QLORA_ISA");
    if (!wish || !*wish) return of_machine();
    const Kernels& set = by_name(wish, "QLORA_ISA");
    return set.supported() ? set : of_machine();
}

const Kernels& kernels_named(std::string_view name) {
    using namespace kernels_room;
    if (name.empty()) return best_kernels();
    const Kernels& set = by_name(name, "the instruction set");
    if (!set.supported())
        fail(Errc::argument, "this machine has no ", name, "; its best is ", of_machine().name);
    return set;
}

std::string_view name_of(Compute compute) {
    return compute == Compute::bf16 ? "bf16" : compute == Compute::mixed ? "mixed" : "f32";
}

Compute Cpu::effective() const {
    if (kernels->gemm_bf16 || compute == Compute::f32) return compute;
    return kernels->dots16 ? Compute::mixed : Compute::f32;
}

bool bf16_pays(const Kernels& set, std::string_view vendor) {
    return set.gemm_bf16 && (!set.bf16_pays || set.bf16_pays(vendor));
}

Compute Cpu::gradients() const {
    const bool bf16 = compute == Compute::mixed ? bf16_pays(*kernels, kernels_room::vendor())
                                                : compute == Compute::bf16 && kernels->gemm_bf16;
    return bf16 ? Compute::bf16 : Compute::f32;
}

}}  // namespace qlora
