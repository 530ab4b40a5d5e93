// cpu.h - what the CPU kernels share: the threads, the instruction set chosen at run time, and the precision of
// products.
#pragma once
#include "src/base/threads.h"
#include "src/tensor/weight.h"

#include <atomic>

namespace qlora { inline namespace QLORA_ABI {

struct Kernels;                                        // of an instruction set: kernels.h
const Kernels& best_kernels();    // of this machine; the environment variable QLORA_ISA=scalar|avx2|... lowers them
// Those of that name, or Error{argument}; empty = best_kernels().
const Kernels& kernels_named(std::string_view name);

// What has been computed: products in floating-point operations (a multiply-add is two), and the bytes of weights, keys
// and values read for them, each counted once a call. Additions of whole calls: nothing in an inner loop.
struct WorkCount {
    std::atomic<int64_t> operations{0}, bytes{0};
    void add(int64_t more_operations, int64_t more_bytes) {
        operations.fetch_add(more_operations, std::memory_order_relaxed);
        bytes.fetch_add(more_bytes, std::memory_order_relaxed);
    }
};

struct Cpu {
    explicit Cpu(int threads = 0, Compute precision = Compute::f32, const Kernels& set = best_kernels())
        : pool(threads), compute(precision), kernels(&set) {}
    ThreadPool pool;
    Compute compute;
    const Kernels* kernels;
    WorkCount work;
    Compute effective() const;                         // what there are instructions for
    // The precision of products that gradients are made of, f32 or bf16: with Compute::mixed whatever is faster.
    Compute gradients() const;
};

}}  // namespace qlora
