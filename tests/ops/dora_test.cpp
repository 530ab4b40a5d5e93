// dora_test.cpp - norms of W + s B A against sums in f64, from floats and from 4-bit codes; magnitudes over norms,
// zeros included.
#include "src/tensor/nf4.h"
#include "tests/ops/samples.h"

#include <gtest/gtest.h>

namespace dora_test {

using namespace qlora;

std::vector<float> norms_of(const Weight& w, const std::vector<float>& a, const std::vector<float>& b, int64_t rank,
                            float scale, int threads) {
    GraphImpl g(make_cpu_backend(threads, Compute::f32));
    const Tensor ta = g.input({rank, w.cols()}), tb = g.input({w.rows(), rank});
    const Tensor n = dora_norm(g.weight(std::make_shared<const Weight>(w)), ta, tb, scale);
    g.output(n);
    g.write(ta, a.data(), int64_t(a.size()) * 4);
    g.write(tb, b.data(), int64_t(b.size()) * 4);
    g.run();
    std::vector<float> out(static_cast<size_t>(w.rows()));
    g.read(n, out.data(), w.rows() * 4);
    return out;
}

TEST(Dora, NormsOfStoredWeights) {
    for (const auto& [rows, cols, rank] :
         {std::tuple<int64_t, int64_t, int64_t>{7, 48, 3}, {130, 192, 8}, {9, 33, 1}}) {
        const Weight dense = dense_weight("w", {rows, cols}, samples::normal_values(rows * cols, 1));
        const std::vector<float> a = samples::normal_values(rank * cols, 2), b = samples::normal_values(rows * rank, 3);
        std::vector<Weight> stored{dense};
        if (cols % 2 == 0) {
            stored.push_back(quantize_4bit(dense, DType::nf4, true));
            stored.push_back(quantize_4bit(dense, DType::fp4, false));
        }
        for (const Weight& w : stored) {
            const std::vector<float> values = w.decoded(), got = norms_of(w, a, b, rank, 0.7f, 2);
            for (int64_t o = 0; o < rows; ++o) {
                double squares = 0;
                for (int64_t i = 0; i < cols; ++i) {
                    double x = values[size_t(o * cols + i)];
                    for (int64_t r = 0; r < rank; ++r) x += 0.7 * b[size_t(o * rank + r)] * a[size_t(r * cols + i)];
                    squares += x * x;
                }
                ASSERT_NEAR(got[size_t(o)], std::sqrt(squares), 1e-5 * std::sqrt(squares))
                    << name_of(w.dtype) << " row " << o;
            }
            EXPECT_EQ(got, norms_of(w, a, b, rank, 0.7f, 1));
        }
    }
}

TEST(Dora, ARowOfZerosHasNoDirection) {
    GraphImpl g(make_cpu_backend(1, Compute::f32));
    const Tensor z = g.input({2, 3}), m = g.param({3}), n = g.input({3}), y = dora_scale(z, m, n);
    g.output(y);
    g.backward(sum(y));
    const Tensor dm = g.handle(g.grads[size_t(m.id())]);
    g.output(dm);
    const float zs[] = {1, 2, 0, 3, 4, 0}, ms[] = {2, 3, 5}, ns[] = {4, 1, 0};
    g.write(z, zs, sizeof zs);
    g.write(m, ms, sizeof ms);
    g.write(n, ns, sizeof ns);
    g.run();
    std::vector<float> out(6), gradient(3);
    g.read(y, out.data(), 24);
    g.read(dm, gradient.data(), 12);
    EXPECT_EQ(out, (std::vector<float>{0.5f, 6, 0, 1.5f, 12, 0}));
    EXPECT_EQ(gradient, (std::vector<float>{1, 6, 0}));
}

}  // namespace dora_test
