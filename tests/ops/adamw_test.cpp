// adamw_test.cpp - ten steps of PyTorch's AdamW with decay and clipping; the norm; sums of gradients; what must be a
// state.
#include "tests/support/op_golden.h"

namespace adamw_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(AdamW, TenStepsEqualPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor p = s::state(g, {23}, op_golden::floats("adamw", "start")), grad = g.input({23}), m = g.state({23}),
                 v = g.state({23}), hyper = g.input({4});
    const Tensor norm = q::global_norm(grad);
    const Tensor stepped = q::adamw(
        p, grad, m, v, norm, hyper,
        {.beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.1f, .max_norm = 0.5f});
    g.output(norm);
    const std::vector<float> gradients = op_golden::floats("adamw", "gradients"),
                             norms = op_golden::floats("adamw", "norms");
    for (int i = 0; i < 10; ++i) {
        // The gradient arrives as a sum of four, to be divided: the factor comes before clipping.
        std::vector<float> sum(gradients.begin() + i * 23, gradients.begin() + (i + 1) * 23);
        for (float& x : sum) x *= 4;
        s::set(grad, sum);
        s::set(hyper, std::vector<float>{1e-2f, float(i + 1), 0.25f, 0});
        g.run();
        EXPECT_NEAR(4 * norms[size_t(i)], s::get(norm)[0], 1e-5);
    }
    op_golden::expect_near(s::get(p), op_golden::floats("adamw", "p"), 1e-6);
    op_golden::expect_near(s::get(stepped), op_golden::floats("adamw", "p"), 1e-6);
    op_golden::expect_near(s::get(m), op_golden::floats("adamw", "m"), 2e-6);
    op_golden::expect_near(s::get(v), op_golden::floats("adamw", "v"), 2e-6);
}

TEST(AdamW, WithoutANormNothingIsClipped) {
    GraphImpl g(s::cpu());
    const Tensor p = g.state({2}), m = g.state({2}), v = g.state({2}),
                 grad = s::input(g, {2}, std::vector<float>{100, -100});
    const Tensor hyper = s::input(g, {4}, std::vector<float>{0.5f, 1, 1, 0});
    q::adamw(p, grad, m, v, {}, hyper, {.max_norm = 0.1f});
    g.run();
    EXPECT_NEAR(10, s::get(m)[0], 1e-5);
    op_golden::expect_near(s::get(p), {-0.5f, 0.5f}, 1e-6);
}

TEST(AdamW, UpdatesOnlyWhatIsAState) {
    GraphImpl g(s::cpu());
    const Tensor p = g.state({2}), x = g.input({2}), hyper = g.input({4});
    EXPECT_TRUE(s::contains(s::error_of([&] { q::adamw(x, x, p, p, {}, hyper, {}); }), "param or a state"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::adamw(p, x, x, p, {}, hyper, {}); }), "source 2"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::adamw(p, x, g.state({3}), p, {}, hyper, {}); }), "[3]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::adamw(p, x, p, p, {}, x, {}); }), "expected [4]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::adamw(p, x, p, p, {}, hyper, {.beta1 = 1}); }), "beta1 1"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::accumulate(q::silu(x), x); }), "param or a state"));
}

TEST(GlobalNorm, ExactWhereFloatWouldOverflowOrLoseIt) {
    GraphImpl g(s::cpu());
    std::vector<float> x(100000, 1e-3f);
    x[50000] = 3e19f;                                  // its square overflows a float
    const Tensor a = q::global_norm(s::input(g, {100000}, x)),
                 b = q::global_norm(s::input(g, {100000}, std::vector<float>(100000, 1e-3f)));
    g.output(a);
    g.output(b);
    g.run();
    EXPECT_FLOAT_EQ(3e19f, s::get(a)[0]);
    EXPECT_FLOAT_EQ(float(std::sqrt(100000.0) * double(1e-3f)), s::get(b)[0]);
}

TEST(Accumulate, SumsOverRuns) {
    GraphImpl g(s::cpu());
    const Tensor total = g.state({3}), x = s::input(g, {3}, std::vector<float>{1, 2, 3});
    q::accumulate(total, x);
    for (int i = 0; i < 4; ++i) g.run();
    EXPECT_EQ((std::vector<float>{4, 8, 12}), s::get(total));
}

}  // namespace adamw_test
