// top_k_test.cpp - the largest numbers of rows, chosen on the device: one round and several, equal numbers, NaN,
// numbers in 16 bits, against the CPU.
#include "tests/cuda/device_under_test.h"

#include "src/base/half.h"
#include "tests/support/graph_support.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cuda_top_k_test {

using device_under_test::backend;
using qlora::Compute;
using qlora::DType;
using qlora::GraphImpl;
using qlora::Tensor;

// Of x as it is, or as a product before would leave it, in bf16.
std::vector<float> best(std::shared_ptr<qlora::BackendImpl> on, const qlora::Shape& shape, const std::vector<float>& x,
                        int64_t k, DType type = DType::f32) {
    GraphImpl g(std::move(on));
    const Tensor t = g.input(shape);
    if (type == DType::f32) g.write(t, x.data(), int64_t(x.size()) * 4);
    else {
        std::vector<uint16_t> bits;
        for (const float v : x) bits.push_back(qlora::bf16_from_f32(v));
        g.nodes[size_t(t.id())].storage = type;
        g.backend->upload(*g.node(t.id()).buffer, 0, bits.data(), int64_t(bits.size()) * 2);
    }
    const Tensor y = qlora::top_k(t, k);
    g.output(y);
    g.run();
    return graph_support::get(y);
}

TEST(CudaTopK, ChoosesAsTheCpuDoes) {
    const auto cpu = qlora::make_cpu_backend(1, Compute::f32);
    struct Case { int64_t rows, n, k; float steps; };
    for (const Case& c : {Case{1, 1, 1, 1}, {2, 37, 5, 2}, {1, 512, 128, 4}, {2, 513, 1, 1}, {1, 700, 700, 9},
                          {3, 2100, 128, 6}, {1, 5000, 300, 0}, {1, 9000, 1024, 40}, {1, 20000, 40, 1000}}) {
        std::vector<float> x = graph_support::random_values(c.rows * c.n, 3);
        for (float& v : x) v = std::round(v * c.steps * 8) / 8;            // many equal ones, and both zeros
        if (c.n > 600) x[577] = HUGE_VALF, x[3] = -HUGE_VALF;
        const auto want = best(cpu, {c.rows, c.n}, x, c.k);
        device_under_test::in_every_order([&](const char* order) {
            EXPECT_EQ(best(backend(), {c.rows, c.n}, x, c.k), want) << c.n << " " << order;
        });
        for (float& v : x) v = qlora::f32_from_bf16(qlora::bf16_from_f32(v));
        EXPECT_EQ(best(backend(Compute::bf16), {c.rows, c.n}, x, c.k, DType::bf16), best(cpu, {c.rows, c.n}, x, c.k));
    }
}

TEST(CudaTopK, NaNIsNotMissed) {
    std::vector<float> x = graph_support::random_values(3000, 3);
    x[2999] = -NAN;
    x[40] = NAN;
    x[41] = HUGE_VALF;
    const auto y = best(backend(), {1, 3000}, x, 3);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
    EXPECT_EQ(std::vector<float>(y.begin() + 2, y.end()), (std::vector<float>{HUGE_VALF, 40, 2999, 41}));
}

}  // namespace cuda_top_k_test
