// gelu_test.cpp - both forms of gelu against PyTorch in double, far into both tails.
#include "tests/support/op_golden.h"

namespace gelu_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Gelu, BothFormsEqualPyTorch) {
    for (const q::Gelu form : {q::Gelu::erf, q::Gelu::tanh}) {
        const char* name = form == q::Gelu::erf ? "gelu" : "gelu_tanh";
        SCOPED_TRACE(name);
        GraphImpl g(s::cpu());
        const Tensor x = g.param({20});
        s::set(x, op_golden::floats(name, "x"));
        const Tensor y = q::gelu(x, form);
        op_golden::run_with_gradient(y, op_golden::floats(name, "dy"), {x});
        op_golden::expect_near(s::get(y), op_golden::floats(name, "y"), 2e-7);
        op_golden::expect_near(s::get(s::grad_of(x)), op_golden::floats(name, "dx"), 5e-7);
    }
}

// The forms are 5e-4 apart at most: a test that would pass with either tells nothing.
TEST(Gelu, TheExactOneIsTheDefaultAndTheFormsDiffer) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {1}, std::vector<float>{-2.3f}), y = q::gelu(x), erf = q::gelu(x, q::Gelu::erf),
                 tanh = q::gelu(x, q::Gelu::tanh);
    for (const Tensor t : {y, erf, tanh}) g.output(t);
    g.run();
    EXPECT_EQ(s::get(y), s::get(erf));
    EXPECT_GT(std::abs(s::get(tanh)[0] - s::get(erf)[0]), 1e-4f);
}

}  // namespace gelu_test
