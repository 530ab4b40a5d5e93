// layer_norm_test.cpp - against PyTorch in double, with and without weight and bias; rows far from 0 beside their
// spread; over stored weights.
#include "src/base/half.h"
#include "tests/support/op_golden.h"

namespace layer_norm_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

std::vector<float> row_of(const std::vector<float>& v, size_t row) {
    return {v.begin() + int64_t(row) * 10, v.begin() + int64_t(row + 1) * 10};
}

// Row by row: the second has a mean of 10^4 times its spread, the third gradients of several hundred.
void expect_rows_near(const std::vector<float>& found, const std::string& name, const char* key, double tolerance) {
    const std::vector<float> expected = op_golden::floats(name, key);
    ASSERT_EQ(expected.size(), found.size());
    for (size_t row = 0; row < 3; ++row) {
        SCOPED_TRACE(key + q::str(", row ", row));
        op_golden::expect_near(row_of(found, row), row_of(expected, row), tolerance);
    }
}

TEST(LayerNorm, EqualsPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({3, 10}), w = g.param({10}), b = g.param({10});
    s::set(x, op_golden::floats("layer_norm", "x"));
    s::set(w, op_golden::floats("layer_norm", "w"));
    s::set(b, op_golden::floats("layer_norm", "b"));
    const Tensor y = q::layer_norm(x, w, b, 1e-5f);
    op_golden::run_with_gradient(y, op_golden::floats("layer_norm", "dy"), {x, w, b});
    expect_rows_near(s::get(y), "layer_norm", "y", 1e-6);
    expect_rows_near(s::get(s::grad_of(x)), "layer_norm", "dx", 2e-6);
    op_golden::expect_near(s::get(s::grad_of(w)), op_golden::floats("layer_norm", "dw"), 1e-6);
    op_golden::expect_near(s::get(s::grad_of(b)), op_golden::floats("layer_norm", "db"), 1e-6);
}

TEST(LayerNorm, WithoutWeightAndBiasEqualsPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor x = g.param({3, 10});
    s::set(x, op_golden::floats("layer_norm", "x"));
    const Tensor y = q::layer_norm(x, {}, {});
    op_golden::run_with_gradient(y, op_golden::floats("layer_norm", "dy"), {x});
    expect_rows_near(s::get(y), "layer_norm_bare", "y", 1e-6);
    expect_rows_near(s::get(s::grad_of(x)), "layer_norm_bare", "dx", 2e-6);
}

// Long rows: 10^4 times the spread away from 0, where the sum of a row is rounded by several times the spread.
TEST(LayerNorm, ALargeMeanCostsNoDigits) {
    const size_t n = 5000;
    std::vector<float> x = s::random_values(int64_t(n), 7);
    for (float& v : x) v += 1e4f;
    double mean = 0, squares = 0;
    for (const float v : x) mean += v / double(n);
    for (const float v : x) squares += (v - mean) * (v - mean) / double(n);
    GraphImpl g(s::cpu());
    const std::vector<float> y = s::value_of(q::layer_norm(s::input(g, {1, int64_t(n)}, x), {}, {}));
    double worst = 0;
    for (size_t i = 0; i < n; ++i)
        worst = std::max(worst, std::abs(y[i] - (x[i] - mean) / std::sqrt(squares + double(1e-5f))));
    EXPECT_LE(worst, 1e-6);
}

TEST(LayerNorm, ConstantRowsAreZero) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {2, 3}, std::vector<float>{0, 0, 0, 1e6f / 3, 1e6f / 3, 1e6f / 3});
    EXPECT_EQ(std::vector<float>(6, 0.0f), s::value_of(q::layer_norm(x, {}, {})));
}

TEST(LayerNorm, FactorsStoredInHalfAreDecoded) {
    q::Weight stored[2];
    std::vector<uint16_t> halves[2];
    std::vector<float> floats[2];
    for (size_t i = 0; i < 2; ++i) {
        for (const float v : s::random_values(10, 5 + i)) {
            halves[i].push_back(q::bf16_from_f32(v));
            floats[i].push_back(q::f32_from_bf16(halves[i].back()));
        }
        stored[i].name = "norm";
        stored[i].dtype = q::DType::bf16;
        stored[i].shape = {10};
        stored[i].data = reinterpret_cast<const uint8_t*>(halves[i].data());
    }
    std::vector<std::vector<float>> values, gradients;
    for (const bool half : {true, false}) {
        GraphImpl g(s::cpu());
        const Tensor x = s::param(g, {4, 10}, 1);
        Tensor f[2];
        for (size_t i = 0; i < 2; ++i)
            f[i] = g.weight(std::make_shared<q::Weight>(half ? stored[i] : q::dense_weight("norm", {10}, floats[i])));
        const Tensor y = q::layer_norm(x, f[0], f[1]);
        op_golden::run_with_gradient(y, s::random_values(40, 3), {x});
        values.push_back(s::get(y));
        gradients.push_back(s::get(s::grad_of(x)));
    }
    EXPECT_EQ(values[0], values[1]);
    EXPECT_EQ(gradients[0], gradients[1]);
}

TEST(LayerNorm, WrongSourcesAreNamed) {
    GraphImpl g(s::cpu()), other(s::cpu());
    const Tensor x = g.input({2, 10}), w = g.input({10}), odd = g.input({9});
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::layer_norm(x, odd, w); }), "a weight of shape [9]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::layer_norm(x, {}, odd); }), "a bias of shape [9]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::layer_norm({}, w, w); }), "layer_norm: an empty Tensor"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::layer_norm(x, other.input({10}), w); }), "another graph"));
}

}  // namespace layer_norm_test
