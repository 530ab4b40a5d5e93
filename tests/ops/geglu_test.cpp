// geglu_test.cpp - geglu against PyTorch, by tanh and by erf, far into both tails.
#include "tests/support/op_golden.h"

namespace geglu_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Geglu, EqualsPyTorch) {
    for (const bool fused : {true, false}) {
        for (const q::Gelu form : {q::Gelu::tanh, q::Gelu::erf}) {
            const char* name = form == q::Gelu::tanh ? "geglu" : "geglu_erf";
            GraphImpl g(s::cpu());
            const Tensor gate = g.param({20}), up = g.param({20});
            s::set(gate, op_golden::floats(name, "gate"));
            s::set(up, op_golden::floats(name, "up"));
            const Tensor one = q::geglu(gate, up, form),
                         y = fused ? one : q::op_def(q::Op::geglu).composed(g, g.node(one.id()));
            op_golden::run_with_gradient(y, op_golden::floats(name, "dy"), {gate, up});
            op_golden::expect_near(s::get(y), op_golden::floats(name, "y"), 1e-6);
            op_golden::expect_near(s::get(s::grad_of(gate)), op_golden::floats(name, "dgate"), 1e-6);
            op_golden::expect_near(s::get(s::grad_of(up)), op_golden::floats(name, "dup"), 1e-6);
        }
    }
}

}  // namespace geglu_test
