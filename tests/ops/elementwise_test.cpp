// elementwise_test.cpp - the small rooms (view, fill, add, bias, mul, scale, sum) by hand, at sizes that split into
// tasks.
#include "tests/support/op_golden.h"

namespace elementwise_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Elementwise, SmallRoomsByHand) {
    GraphImpl g(s::cpu());
    const Tensor a = s::input(g, {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}),
                 b = s::input(g, {2, 3}, std::vector<float>{10, 20, 30, 40, 50, 60});
    const Tensor c = s::input(g, {3}, std::vector<float>{-1, 0, 1}), rows = s::input(g, {2}, std::vector<float>{2, -1});
    const std::vector<std::pair<Tensor, std::vector<float>>> expected = {
        {a + b, {11, 22, 33, 44, 55, 66}},
        {a + c, {0, 2, 4, 3, 5, 7}},
        {a * b, {10, 40, 90, 160, 250, 360}},
        {a * 0.5f, {0.5f, 1, 1.5f, 2, 2.5f, 3}},
        {q::sum(a), {21}},
        {q::fill(g, {2}, 3), {3, 3}},
        {q::scale_rows(a, rows), {2, 4, 6, -4, -5, -6}},
        {q::scale(q::view(a, 2, {3}), 1), {3, 4, 5}},
    };
    for (const auto& [t, values] : expected) g.output(t);
    g.run();
    for (const auto& [t, values] : expected) EXPECT_EQ(values, s::get(t)) << q::op_def(g.node(t.id()).op).name;
}

TEST(Elementwise, LargeSumsAreAccurate) {
    GraphImpl g(s::cpu());
    const int64_t n = 1 << 20;
    EXPECT_NEAR(0.1 * double(n), s::value_of(q::sum(s::input(g, {n}, std::vector<float>(size_t(n), 0.1f))))[0], 0.02);
}

TEST(Elementwise, BiasGradientSumsManyRows) {
    GraphImpl g(s::cpu());
    const int64_t rows = 3000, n = 37;
    const Tensor x = s::input(g, {rows, n}, 1), b = s::param(g, {n}, 2), y = q::bias(x, b);
    const std::vector<float> dy = s::random_values(rows * n, 3);
    op_golden::run_with_gradient(y, dy, {b});
    std::vector<float> expected;
    for (int64_t c = 0; c < n; ++c) {
        double total = 0;
        for (int64_t r = 0; r < rows; ++r) total += double(dy[size_t(r * n + c)]);
        expected.push_back(float(total));
    }
    op_golden::expect_near(s::get(s::grad_of(b)), expected, 1e-5);
}

TEST(Elementwise, ViewsAndFactorsThatCannotHaveAGradientSaySo) {
    GraphImpl g(s::cpu());
    const Tensor p = s::param(g, {2, 3}, 1);
    EXPECT_TRUE(s::contains(s::error_of([&] { q::view(p, 0, {3}); }), "[2, 3]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::view(p, 4, {3}); }), "does not fit"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::view(p, -1, {6}); }), "does not fit"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::reshape(p, {7}); }), "[7]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::scale_rows(p, g.param({2})); }), "no gradient"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::scale_rows(p, g.input({3})); }), "[3]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)(p + g.input({2})); }), "[2]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::fill(g, {}, 1); }), "fill"));
}

}  // namespace elementwise_test
