// clamp_test.cpp - clamp against PyTorch, its gradient at the bounds, bounds that are refused.
#include "tests/support/op_golden.h"

#include <limits>

namespace clamp_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

constexpr float infinity = std::numeric_limits<float>::infinity();

TEST(Clamp, EqualsPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({20});
    s::set(x, op_golden::floats("clamp", "x"));
    const Tensor y = q::clamp(x, -1.5f, 2.0f);
    op_golden::run_with_gradient(y, op_golden::floats("clamp", "dy"), {x});
    EXPECT_EQ(op_golden::floats("clamp", "y"), s::get(y));
    EXPECT_EQ(op_golden::floats("clamp", "dx"), s::get(s::grad_of(x)));
}

TEST(Clamp, GradientsPassAtTheBoundsAndNaNStays) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({7});
    s::set(x, std::vector<float>{-1.5f, 2, -1.6f, 2.1f, -infinity, infinity, NAN});
    const Tensor y = q::clamp(x, -1.5f, 2);
    op_golden::run_with_gradient(y, std::vector<float>(7, 3.0f), {x});
    const std::vector<float> value = s::get(y), dx = s::get(s::grad_of(x));
    EXPECT_EQ((std::vector<float>{-1.5f, 2, -1.5f, 2, -1.5f, 2}), std::vector<float>(value.begin(), value.end() - 1));
    EXPECT_TRUE(std::isnan(value[6]));
    EXPECT_EQ((std::vector<float>{3, 3, 0, 0, 0, 0, 0}), dx);
}

TEST(Clamp, OneBoundIsEnough) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {3}, std::vector<float>{-5, 0.5f, 7});
    EXPECT_EQ((std::vector<float>{-1, 0.5f, 7}), s::value_of(q::clamp(x, -1, infinity)));
}

TEST(Clamp, BoundsThatAreNoneAreRefused) {
    GraphImpl g(s::cpu());
    const Tensor x = g.input({3});
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::clamp(x, 2, 1); }), "clamp: the bounds 2 and 1"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::clamp(x, NAN, 1); }), "clamp: the bounds"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::clamp(x, 0, NAN); }), "clamp: the bounds"));
}

}  // namespace clamp_test
