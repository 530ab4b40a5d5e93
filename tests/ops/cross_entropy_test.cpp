// cross_entropy_test.cpp - against PyTorch with ignored rows; wide rows; no target at all; targets outside the
// vocabulary.
#include "tests/support/op_golden.h"

namespace cross_entropy_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(CrossEntropy, EqualsPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor logits = g.param({5, 7}), targets = s::indices(g, op_golden::integers("cross_entropy", "targets"));
    s::set(logits, op_golden::floats("cross_entropy", "logits"));
    const Tensor loss = q::cross_entropy(logits, targets);
    g.backward(loss);
    g.output(loss);
    g.output(s::grad_of(logits));
    g.run();
    EXPECT_NEAR(op_golden::floats("cross_entropy", "loss")[0], s::get(loss)[0], 1e-6);
    op_golden::expect_near(s::get(s::grad_of(logits)), op_golden::floats("cross_entropy", "dlogits"), 1e-6);
}

TEST(CrossEntropy, WideRowsAgreeWithTheDefinitionInDouble) {
    GraphImpl g(s::cpu());
    const int64_t n = 5000;                            // several pieces of the sum
    std::vector<float> z = s::random_values(2 * n, 4, 5);
    z[7] = 300;                                        // exp(300) is infinite in float
    const Tensor loss = q::cross_entropy(s::input(g, {2, n}, z), s::indices(g, {11, 4999}));
    double expected = 0;
    for (const int64_t r : {0, 1}) {
        double sum = 0;
        for (int64_t c = 0; c < n; ++c) sum += std::exp(double(z[size_t(r * n + c)]) - 300);
        expected += (300 + std::log(sum) - double(z[size_t(r ? n + 4999 : 11)])) / 2;
    }
    EXPECT_NEAR(expected, s::value_of(loss)[0], 1e-6 * expected);
}

TEST(CrossEntropy, WithoutTargetsTheLossAndItsGradientAreZero) {
    GraphImpl g(s::cpu());
    const Tensor logits = s::param(g, {2, 3}, 1), loss = q::cross_entropy(logits, s::indices(g, {-1, -1}));
    g.backward(loss);
    g.output(loss);
    g.output(s::grad_of(logits));
    g.run();
    EXPECT_EQ(0, s::get(loss)[0]);
    EXPECT_EQ(std::vector<float>(6, 0), s::get(s::grad_of(logits)));
}

TEST(CrossEntropy, ATargetOutsideIsNamed) {
    GraphImpl g(s::cpu());
    const Tensor loss = q::cross_entropy(s::input(g, {2, 3}, 1), s::indices(g, {0, 3}));
    g.output(loss);
    EXPECT_TRUE(s::contains(s::error_of([&] { g.run(); }), "target 3 in row 1"));
    EXPECT_TRUE(s::contains(s::error_of([] {
                                GraphImpl h(s::cpu());
                                (void)q::cross_entropy(h.input({2, 3}), h.input({3}, q::DType::i32));
                            }),
                            "2 rows"));
}

}  // namespace cross_entropy_test
