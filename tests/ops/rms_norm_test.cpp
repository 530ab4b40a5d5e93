// rms_norm_test.cpp - against the module of transformers; over stored weights; extreme rows.
#include "src/base/half.h"
#include "tests/support/op_golden.h"

namespace rms_norm_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(RmsNorm, EqualsTransformers) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({3, 10}), w = g.param({10});
    s::set(x, op_golden::floats("rms_norm", "x"));
    s::set(w, op_golden::floats("rms_norm", "w"));
    const Tensor y = q::rms_norm(x, w, 1e-5f);
    op_golden::run_with_gradient(y, op_golden::floats("rms_norm", "dy"), {x, w});
    op_golden::expect_near(s::get(y), op_golden::floats("rms_norm", "y"), 2e-6);
    op_golden::expect_near(s::get(s::grad_of(x)), op_golden::floats("rms_norm", "dx"), 4e-6);
    op_golden::expect_near(s::get(s::grad_of(w)), op_golden::floats("rms_norm", "dw"), 2e-6);
}

TEST(RmsNorm, AWeightStoredInHalfIsDecoded) {
    std::vector<uint16_t> halves;
    std::vector<float> floats;
    for (const float v : s::random_values(10, 5)) {
        halves.push_back(q::bf16_from_f32(v));
        floats.push_back(q::f32_from_bf16(halves.back()));
    }
    q::Weight stored;
    stored.name = "norm";
    stored.dtype = q::DType::bf16;
    stored.shape = {10};
    stored.data = reinterpret_cast<const uint8_t*>(halves.data());
    std::vector<std::vector<float>> values, gradients;
    for (const bool half : {true, false}) {
        GraphImpl g(s::cpu());
        const Tensor x = s::param(g, {4, 10}, 1);
        const Tensor w = g.weight(std::make_shared<q::Weight>(half ? stored : q::dense_weight("norm", {10}, floats)));
        const Tensor y = q::rms_norm(x, w);
        op_golden::run_with_gradient(y, s::random_values(40, 3), {x});
        values.push_back(s::get(y));
        gradients.push_back(s::get(s::grad_of(x)));
    }
    EXPECT_EQ(values[0], values[1]);
    EXPECT_EQ(gradients[0], gradients[1]);
}

TEST(RmsNorm, RowsOfZerosAndOfLargeNumbersStayFinite) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {2, 4}, std::vector<float>{0, 0, 0, 0, 1e18f, -1e18f, 1e18f, 1e18f}),
                 w = s::input(g, {4}, std::vector<float>{1, 1, 1, 1});
    const std::vector<float> y = s::value_of(q::rms_norm(x, w));
    EXPECT_EQ((std::vector<float>{0, 0, 0, 0}), std::vector<float>(y.begin(), y.begin() + 4));
    for (size_t i = 4; i < 8; ++i) EXPECT_NEAR(1, std::fabs(y[i]), 1e-6);
}

}  // namespace rms_norm_test
