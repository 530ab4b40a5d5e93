// backend_test.cpp - the CUDA backend on the emulation: every operation against the CPU, forward and gradient, in
// several orders of threads. This file compiles the wing; tests that use it through the public interface link with it.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "qlora-cuda.cu"

#include "tests/ops/trial.h"

namespace cuda_backend_test {

using cuda_emulation::Order;
using qlora::Compute;
using samples::Sample;
using samples::Trial;

std::shared_ptr<qlora::BackendImpl> backend(Compute compute = Compute::f32) {
    return qlora::make_cuda_backend(0, compute);
}

// What it does not have yet is refused by name, when a graph is planned.
bool has_all(Trial& t) {
    for (const qlora::Node& n : t.g.nodes)
        if (qlora::op_def(n.op).computes && !t.g.backend->kernel(n.op)) return false;
    return true;
}

TEST(CudaBackend, EveryOperationAgreesWithTheCpu) {
    const auto cpu = qlora::make_cpu_backend(2, Compute::f32);
    for (const bool large : {false, true}) {
        for (const Sample& s : samples::all(large)) {
            const auto want = Trial(s, cpu, true).results();
            std::vector<std::vector<float>> first;
            for (const Order order : {Order::forward, Order::random}) {
                cuda_emulation::options = {order, 3};
                Trial t(s, backend(), true);
                if (!has_all(t)) {
                    if (order == Order::forward && !large) std::cout << "no kernel yet: " << samples::title(s) << "\n";
                    continue;
                }
                const auto got = t.results();
                samples::expect_close(got, want, 2e-5, samples::title(s));
                if (first.empty()) first = got;
                EXPECT_EQ(got, first) << samples::title(s) << ": the order of threads shows";
            }
        }
    }
    cuda_emulation::options = {};
}

// bf16 rounds a result by 2^-9 of itself at most; sums of rounded factors stay within 2^-6 of the largest result.
TEST(CudaBackend, SixteenBitsAgreeWithTheCpuToTheirPrecision) {
    const auto cpu = qlora::make_cpu_backend(2, Compute::f32);
    for (const Sample& s : samples::all(true)) {
        Trial t(s, backend(Compute::bf16), true);
        if (has_all(t)) samples::expect_close(t.results(), Trial(s, cpu, true).results(), 0x1p-6, samples::title(s));
    }
}

}  // namespace cuda_backend_test
