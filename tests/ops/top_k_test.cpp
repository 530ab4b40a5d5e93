// top_k_test.cpp - which of equal numbers comes first, what NaN and infinities are, and what is refused.
#include "src/ops/ops.h"
#include "tests/support/graph_support.h"

#include <gtest/gtest.h>

#include <cmath>

namespace top_k_test {

using qlora::Compute;
using qlora::GraphImpl;
using qlora::Tensor;

std::vector<float> best(const qlora::Shape& shape, const std::vector<float>& x, int64_t k) {
    GraphImpl g(qlora::make_cpu_backend(2, Compute::f32));
    const Tensor y = qlora::top_k(graph_support::input(g, shape, x), k);
    g.output(y);
    g.run();
    return graph_support::get(y);
}

TEST(TopK, TheLargestAndOfEqualOnesTheFirst) {
    EXPECT_EQ(best({1, 6}, {1, 3, 2, 3, -0.0f, 0.0f}, 4), (std::vector<float>{3, 3, 2, 1, 1, 3, 2, 0}));
    EXPECT_EQ(best({2, 3}, {-1, -0.0f, 0.0f, 7, 7, 7}, 3), (std::vector<float>{0, 0, -1, 1, 2, 0, 7, 7, 7, 0, 1, 2}));
    EXPECT_EQ(best({1, 1}, {5}, 1), (std::vector<float>{5, 0}));
    EXPECT_EQ(best({1, 3}, {-HUGE_VALF, HUGE_VALF, 1}, 2), (std::vector<float>{HUGE_VALF, 1, 1, 2}));
}

TEST(TopK, NaNIsNotMissed) {
    const std::vector<float> y = best({1, 5}, {1, NAN, HUGE_VALF, -NAN, 2}, 3);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
    EXPECT_EQ(std::vector<float>(y.begin() + 2, y.end()), (std::vector<float>{HUGE_VALF, 1, 3, 2}));
}

TEST(TopK, AsSortingWouldChoose) {
    std::vector<float> x = graph_support::random_values(3 * 2000, 4);
    for (float& v : x) v = std::round(v * 20);         // many equal ones
    const std::vector<float> y = best({3, 2000}, x, 150);
    for (size_t row = 0; row < 3; ++row) {
        std::vector<int> order(2000);
        for (int i = 0; i < 2000; ++i) order[size_t(i)] = i;
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return x[row * 2000 + size_t(a)] > x[row * 2000 + size_t(b)]; });
        for (size_t i = 0; i < 150; ++i) {
            EXPECT_EQ(y[row * 300 + 150 + i], float(order[i]));
            EXPECT_EQ(y[row * 300 + i], x[row * 2000 + size_t(order[i])]);
        }
    }
}

TEST(TopK, RefusesWhatIsNotThere) {
    GraphImpl g(qlora::make_cpu_backend(1, Compute::f32));
    for (const auto& [shape, k] : {std::pair(qlora::Shape{2, 5}, 6), {{2, 5}, 0}, {{2, 5000}, 1025}, {{5}, 1}})
        EXPECT_THROW((void)qlora::top_k(g.input(shape), k), qlora::Error) << qlora::str(shape, " ", k);
}

}  // namespace top_k_test
