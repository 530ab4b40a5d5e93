// sweep_test.cpp - every operation of the CUDA backend against the CPU, value and gradients, in f32 and in bf16.
#include "tests/cuda/device_under_test.h"
#include "tests/ops/trial.h"

namespace cuda_sweep_test {

using device_under_test::backend;
using qlora::Compute;
using samples::Sample;
using samples::Trial;

TEST(CudaSweep, EveryOperationAgreesWithTheCpu) {
    const auto cpu = qlora::make_cpu_backend(2, Compute::f32);
    for (const bool large : {false, true}) {
        for (const Sample& s : samples::all(large)) {
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
    for (const Sample& s : samples::all(true))
        samples::expect_close(Trial(s, backend(Compute::bf16), true).results(), Trial(s, cpu, true).results(), 0x1p-6,
                              samples::title(s));
}

TEST(CudaSweep, InThePlaceOfASourceItIsTheSameBytes) {
    std::map<qlora::Op, uint32_t> seen;
    for (const Compute compute : {Compute::f32, Compute::bf16})
        for (const Sample& s : samples::all(false)) samples::expect_same_in_place(s, backend(compute), seen);
    samples::expect_all_that_may_be_replaced(seen);
}

TEST(CudaSweep, TheSameBytesTwice) {
    for (const Sample& s : samples::all(true)) {
        const auto once = Trial(s, backend(Compute::bf16), true).results();
        EXPECT_EQ(once, Trial(s, backend(Compute::bf16), true).results()) << samples::title(s);
    }
}

}  // namespace cuda_sweep_test
