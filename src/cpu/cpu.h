// cpu.h - what the CPU kernels share: the threads, the instruction set chosen at run time, and the precision of products.
#pragma once
#include "src/base/threads.h"
#include "src/tensor/weight.h"

namespace qlora::inline v0_1 {

enum class Isa : uint8_t { scalar, avx2, avx512, avx512_bf16 };
Isa best_isa();                                        // of this machine; the environment variable QLORA_ISA=scalar|avx2|... lowers it
std::string_view name_of(Isa);
Isa isa_named(std::string_view name);                  // that name or Error{argument}; empty = best_isa()

struct Cpu {
    explicit Cpu(int threads = 0, Compute compute = Compute::f32, Isa isa = best_isa()) : pool(threads), compute(compute), isa(isa) {}
    ThreadPool pool;
    Compute compute;
    Isa isa;
};

}  // namespace qlora
