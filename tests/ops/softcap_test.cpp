// softcap_test.cpp - softcap against PyTorch, and the caps that are refused: here, in attention and in the loss.
#include "tests/support/op_golden.h"

#include <limits>

namespace softcap_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Softcap, EqualsPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({20});
    s::set(x, op_golden::floats("softcap", "x"));
    const Tensor y = q::softcap(x, 30);
    op_golden::run_with_gradient(y, op_golden::floats("softcap", "dy"), {x});
    op_golden::expect_near(s::get(y), op_golden::floats("softcap", "y"), 3e-7);
    op_golden::expect_near(s::get(s::grad_of(x)), op_golden::floats("softcap", "dx"), 1e-6);
    const std::vector<float> values = s::get(y), want = op_golden::floats("softcap", "y");
    for (size_t i = 0; i < want.size(); ++i)           // small scores keep their digits
        EXPECT_NEAR(values[i], want[i], 6e-7 * std::fabs(want[i])) << i;
}

TEST(Softcap, CapsThatAreNoneAreRefused) {
    GraphImpl g(s::cpu());
    const Tensor x = g.input({2, 4}), w = g.input({3, 4}), rows = g.input({2}, q::DType::i32);
    for (const float cap : {-1.0f, NAN, std::numeric_limits<float>::infinity(), 1e-40f}) {
        EXPECT_TRUE(s::contains(s::error_of([&] { q::softcap(x, cap); }), "softcap: a cap of "));
        const q::AttentionAttr attr{.heads = 1, .kv_heads = 1, .head_dim = 4, .cap = cap};
        const std::string attention = s::error_of([&] { q::attention(x, x, x, rows, rows, attr); });
        EXPECT_TRUE(s::contains(attention, "attention: a cap of ")) << attention;
        EXPECT_TRUE(s::contains(attention, "or 0 for none")) << attention;
        const std::string loss = s::error_of([&] { q::linear_cross_entropy(x, w, rows, true, cap); });
        EXPECT_TRUE(s::contains(loss, "linear_cross_entropy: a cap of ")) << loss;
    }
    EXPECT_TRUE(s::contains(s::error_of([&] { q::softcap(x, 0); }), "a cap of 0 for scores, expected a positive"));
}

}  // namespace softcap_test
