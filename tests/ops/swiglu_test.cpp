// swiglu_test.cpp - swiglu and silu against PyTorch, far into both tails.
#include "tests/support/op_golden.h"

namespace swiglu_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Swiglu, EqualsPyTorch) {
    for (const bool fused : {true, false}) {
        GraphImpl g(s::cpu());
        const Tensor gate = g.param({40}), up = g.param({40});
        s::set(gate, op_golden::floats("swiglu", "gate"));
        s::set(up, op_golden::floats("swiglu", "up"));
        const Tensor y = fused ? q::swiglu(gate, up) : q::mul(q::silu(gate), up);
        op_golden::run_with_gradient(y, op_golden::floats("swiglu", "dy"), {gate, up});
        op_golden::expect_near(s::get(y), op_golden::floats("swiglu", "y"), 1e-6);
        op_golden::expect_near(s::get(s::grad_of(gate)), op_golden::floats("swiglu", "dgate"), 1e-6);
        op_golden::expect_near(s::get(s::grad_of(up)), op_golden::floats("swiglu", "dup"), 1e-6);
    }
}

TEST(Silu, TheTailsAreFinite) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({6});
    s::set(x, std::vector<float>{-1e4f, -100, -20, 20, 100, 1e4f});
    const Tensor y = q::silu(x);
    op_golden::run_with_gradient(y, {1, 1, 1, 1, 1, 1}, {x});
    const std::vector<float> value = s::get(y), dx = s::get(s::grad_of(x));
    for (size_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(0, value[i], 1e-6);
        EXPECT_NEAR(0, dx[i], 1e-6);
        EXPECT_NEAR(std::vector<float>({20, 100, 1e4f})[i], value[3 + i], 1e-3);
        EXPECT_NEAR(1, dx[3 + i], 1e-6);
    }
}

}  // namespace swiglu_test
