// dropout_test.cpp - the mask is the documented function of seed, step, stream and element; its share and its mean;
// probabilities outside [0, 1).
#include "tests/support/op_golden.h"

namespace dropout_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Dropout, TheMaskIsTheDocumentedFunction) {
    GraphImpl g(s::cpu());
    const int64_t n = 50001;                           // several tasks
    const float p = 0.3f;
    g.set_step(4);
    const std::vector<float> y = s::value_of(
        q::dropout(s::input(g, {n}, std::vector<float>(size_t(n), 2)), {p, 10, 6}));
    q::Rng draw{14, 6};
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
        const bool keep = draw.uniform() >= p;
        EXPECT_EQ(keep ? 2 * (1 / (1 - p)) : 0, y[size_t(i)]) << i;
        kept += keep;
    }
    EXPECT_NEAR(0.7, double(kept) / double(n), 0.01);  // five standard deviations
}

TEST(Dropout, TheGradientPassesThroughTheSameMask) {
    GraphImpl g(s::cpu());
    const Tensor x = s::param(g, {32}, 1), y = q::dropout(x, {0.5f, 1, 2});
    op_golden::run_with_gradient(y, std::vector<float>(32, 1), {x});
    const std::vector<float> value = s::get(y), dx = s::get(s::grad_of(x));
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(value[i] != 0 ? 2 : 0, dx[i]);
}

TEST(Dropout, ZeroPassesAndOneIsRefused) {
    GraphImpl g(s::cpu());
    const std::vector<float> values = s::random_values(9, 2);
    const Tensor x = s::input(g, {9}, values);
    for (const float p : {1.0f, -0.1f, NAN})
        EXPECT_TRUE(s::contains(s::error_of([&] { q::dropout(x, {p, 0, 0}); }), "probability"));
    EXPECT_EQ(values, s::value_of(q::dropout(x, {0, 1, 1})));
}

}  // namespace dropout_test
