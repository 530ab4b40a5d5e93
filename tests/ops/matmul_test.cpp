// matmul_test.cpp - what the sweep does not see of matmul, qmatmul and lora: which operation a weight selects, that a
// stored weight never gets a gradient, and that lora's dropout mask follows seed and step.
#include "src/cpu/cpu.h"
#include "tests/ops/samples.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace matmul_test {

using qlora::GraphImpl;
using qlora::Op;
using qlora::Tensor;

TEST(Matmul, AStoredWeightSelectsQmatmulAndStaysFrozen) {
    GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
    const Tensor x = g.param({3, 32}), w = g.weight(samples::stored_weight({5, 32}, 1)), f = g.param({5, 32});
    const Tensor stored = qlora::matmul(x, w), dense = qlora::matmul(x, f);
    EXPECT_EQ(g.node(stored.id()).op, Op::qmatmul);
    EXPECT_EQ(g.node(dense.id()).op, Op::matmul);
    g.backward(qlora::sum(qlora::add(stored, dense)));
    EXPECT_GE(g.grads[size_t(x.id())], 0);
    EXPECT_GE(g.grads[size_t(f.id())], 0);
    EXPECT_EQ(g.grads[size_t(w.id())], -1);
    EXPECT_THROW(g.add(Op::qmatmul, {x, f}), qlora::Error);
    EXPECT_THROW(g.add(Op::matmul, {x, w}), qlora::Error);
    EXPECT_THROW((void)qlora::matmul(w, f), qlora::Error);
}

TEST(Matmul, AStoredWeightEqualsItsDecodedSelf) {
    for (int64_t rows : {1, 3, 70}) {                  // generation, a few rows, a prompt
        GraphImpl g(qlora::make_cpu_backend(2, qlora::Compute::f32));
        const auto weight = samples::stored_weight({130, 96}, 1);
        const Tensor x = g.input({rows, 96}), d = g.input({130, 96});
        const Tensor stored = qlora::matmul(x, g.weight(weight)), dense = qlora::matmul(x, d);
        g.output(stored);
        g.output(dense);
        const std::vector<float> values = samples::normal_values(rows * 96, 3), decoded = weight->decoded();
        g.write(x, values.data(), rows * 96 * 4);
        g.write(d, decoded.data(), 130 * 96 * 4);
        g.run();
        std::vector<float> a(size_t(rows * 130)), b(a.size());
        g.read(stored, a.data(), int64_t(a.size()) * 4);
        g.read(dense, b.data(), int64_t(b.size()) * 4);
        // sums of 96 products of order 1
        for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-4) << rows << " rows at " << i;
    }
}

// With A and B identities, lora of a zero base is drop(x) itself.
std::vector<float> dropped(float p, uint64_t seed, uint64_t stream, uint64_t step, int64_t rows, int64_t n) {
    GraphImpl g(qlora::make_cpu_backend(2, qlora::Compute::f32));
    const Tensor base = g.input({rows, n}), x = g.input({rows, n}), a = g.input({n, n});
    const Tensor y = qlora::lora(base, x, a, a, {.scale = 1, .p = p, .seed = seed, .stream = stream});
    g.output(y);
    const std::vector<float> ones(size_t(rows * n), 1.0f);
    std::vector<float> identity(size_t(n * n)), got(ones.size());
    for (int64_t i = 0; i < n; ++i) identity[size_t(i * n + i)] = 1;
    g.write(x, ones.data(), rows * n * 4);
    g.write(a, identity.data(), n * n * 4);
    g.set_step(step);
    g.run();
    g.read(y, got.data(), rows * n * 4);
    return got;
}

TEST(Lora, DropoutFollowsTheCounter) {
    const int64_t rows = 300, n = 30;    // rows begin within a draw of four, and one chunk ends at row 256
    const float p = 0.4f;
    const std::vector<float> got = dropped(p, 11, 5, 2, rows, n);
    for (int64_t e = 0; e < rows * n; ++e) {
        const bool keep = qlora::uniform01(qlora::philox(11 + 2, 5, uint64_t(e) >> 2).v[e & 3]) >= p;
        ASSERT_NEAR(got[size_t(e)], keep ? 1 / (1 - p) : 0, 1e-6) << e;
    }
    const double kept = double(std::count_if(got.begin(), got.end(), [](float v) { return v != 0; })) /
                        double(got.size());
    EXPECT_NEAR(kept, 0.6, 0.02);                      // 9000 draws: a standard deviation is 0.005
    EXPECT_EQ(got, dropped(p, 11, 5, 2, rows, n));
    EXPECT_NE(got, dropped(p, 11, 5, 3, rows, n));
    EXPECT_NE(got, dropped(p, 11, 6, 2, rows, n));
    EXPECT_EQ(dropped(0, 11, 5, 2, rows, n), std::vector<float>(size_t(rows * n), 1.0f));
}

TEST(Lora, RefusesAProbabilityOfOne) {
    EXPECT_THROW(dropped(1, 1, 1, 0, 4, 4), qlora::Error);
    EXPECT_THROW(dropped(-0.1f, 1, 1, 0, 4, 4), qlora::Error);
    EXPECT_THROW(dropped(NAN, 1, 1, 0, 4, 4), qlora::Error);
}

}  // namespace matmul_test
