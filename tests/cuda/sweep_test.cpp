// sweep_test.cpp - every operation of the CUDA backend against the CPU, value and gradients, in f32 and in bf16.
#include "tests/cuda/device_under_test.h"
#include "tests/ops/trial.h"

namespace cuda_sweep_test {

using device_under_test::backend;
using qlora::Compute;
using samples::Sample;
using samples::Trial;

// What it does not have yet is refused by name, when a graph is planned.
bool has_all(Trial& t) {
    for (const qlora::Node& n : t.g.nodes)
        if (qlora::op_def(n.op).computes && !t.g.backend->kernel(n.op)) return false;
    return true;
}

TEST(CudaSweep, EveryOperationAgreesWithTheCpu) {
    const auto cpu = qlora::make_cpu_backend(2, Compute::f32);
    for (const bool large : {false, true}) {
        for (const Sample& s : samples::all(large)) {
            if (Trial t(s, backend(), true); !has_all(t)) {
                if (!large) std::cout << "no kernel yet: " << samples::title(s) << "\n";
                continue;
            }
            const auto want = Trial(s, cpu, true).results();
            std::vector<std::vector<float>> first;
            device_under_test::in_every_order([&](const char* order) {
                const auto got = Trial(s, backend(), true).results();
                samples::expect_close(got, want, 2e-5, samples::title(s) + ", " + order);
                if (first.empty()) first = got;
                EXPECT_EQ(got, first) << samples::title(s) << ": the order of threads shows";
            });
        }
    }
}

// bf16 rounds a result by 2^-9 of itself at most; sums of rounded factors stay within 2^-6 of the largest result.
TEST(CudaSweep, SixteenBitsAgreeWithTheCpuToTheirPrecision) {
    const auto cpu = qlora::make_cpu_backend(2, Compute::f32);
    for (const Sample& s : samples::all(true)) {
        Trial t(s, backend(Compute::bf16), true);
        if (has_all(t)) samples::expect_close(t.results(), Trial(s, cpu, true).results(), 0x1p-6, samples::title(s));
    }
}

TEST(CudaSweep, TheSameBytesTwice) {
    for (const Sample& s : samples::all(true)) {
        Trial t(s, backend(Compute::bf16), true);
        if (!has_all(t)) continue;
        EXPECT_EQ(t.results(), Trial(s, backend(Compute::bf16), true).results()) << samples::title(s);
    }
}

}  // namespace cuda_sweep_test
