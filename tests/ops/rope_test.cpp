// rope_test.cpp - against transformers (halves) and complex numbers (adjacent pairs); partial rotation; the inverse;
// far positions.
#include "tests/support/op_golden.h"

#include <cmath>

namespace rope_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Rope, EqualsTheReferenceInBothPairings) {
    for (const bool adjacent : {false, true}) {
        GraphImpl g(s::cpu());
        const Tensor x = s::input(g, {4, 16}, op_golden::floats("rope", "x")),
                     pos = s::indices(g, op_golden::integers("rope", "positions"));
        const Tensor f = s::input(g, {4}, op_golden::floats("rope", "inverse"));
        const q::RopeAttr a{.head_dim = 8, .rotated = 8, .adjacent = adjacent};
        op_golden::expect_near(s::value_of(q::rope(x, pos, f, a)),
                               op_golden::floats("rope", adjacent ? "adjacent" : "halves"), 2e-6);
    }
}

TEST(Rope, ThePublicBuilderMakesTheFrequencies) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {4, 16}, op_golden::floats("rope", "x")),
                 pos = s::indices(g, op_golden::integers("rope", "positions"));
    op_golden::expect_near(s::value_of(q::rope(x, pos, 2)), op_golden::floats("rope", "halves"), 2e-5);
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::rope(x, pos, 3); }), "[4, 16]"));
}

TEST(Rope, TheRestOfAHeadPassesAndTheInverseTurnsBack) {
    for (const bool adjacent : {false, true}) {
        GraphImpl g(s::cpu());
        const std::vector<float> values = s::random_values(2 * 12, 3);
        const Tensor x = s::input(g, {2, 12}, values), pos = s::indices(g, {9, 100000}),
                     f = s::input(g, {2}, std::vector<float>{1, 0.01f});
        q::RopeAttr a{.head_dim = 6, .rotated = 4, .adjacent = adjacent};
        const Tensor y = q::rope(x, pos, f, a);
        a.inverse = true;
        const Tensor back = q::rope(y, pos, f, a);
        g.output(y);
        g.output(back);
        g.run();
        op_golden::expect_near(s::get(back), values, 1e-6);
        const std::vector<float> turned = s::get(y);
        for (size_t i = 0; i < values.size(); ++i) {
            if (i % 6 >= 4) EXPECT_EQ(values[i], turned[i]);
            else EXPECT_NE(values[i], turned[i]);
        }
    }
}

// Heads of 80 of which 20 turn, forward and backward. What does not turn is the same bits.
TEST(Rope, AQuarterOfAHeadEqualsGptNeox) {
    for (const bool adjacent : {false, true}) {
        SCOPED_TRACE(adjacent ? "adjacent" : "halves");
        GraphImpl g(s::cpu());
        const std::vector<float> values = op_golden::floats("partial_rope", "x"),
                                 dy = op_golden::floats("partial_rope", "dy");
        const Tensor x = g.param({3, 160}), pos = s::indices(g, op_golden::integers("partial_rope", "positions")),
                     f = s::input(g, {10}, op_golden::floats("partial_rope", "inverse"));
        s::set(x, values);
        const Tensor y = q::rope(x, pos, f, {.head_dim = 80, .rotated = 20, .adjacent = adjacent});
        op_golden::run_with_gradient(y, dy, {x});
        const std::vector<float> turned = s::get(y), dx = s::get(s::grad_of(x));
        op_golden::expect_near(turned, op_golden::floats("partial_rope", adjacent ? "adjacent" : "halves"), 2e-6);
        if (!adjacent) op_golden::expect_near(dx, op_golden::floats("partial_rope", "dx"), 2e-6);
        for (size_t i = 0; i < values.size(); ++i) {
            if (i % 80 < 20) continue;
            ASSERT_EQ(values[i], turned[i]) << i;
            ASSERT_EQ(dy[i], dx[i]) << i;
        }
    }
}

TEST(Rope, TheMagnitudeScalesOnlyWhatTurns) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {1, 6}, std::vector<float>{1, 2, 3, 4, 5, 6}), pos = s::indices(g, {0}),
                 f = s::input(g, {2}, std::vector<float>{1, 1});
    EXPECT_EQ((std::vector<float>{2, 4, 6, 8, 5, 6}),
              s::value_of(q::rope(x, pos, f, {.head_dim = 6, .rotated = 4, .magnitude = 2})));
}

// All of a head, by 1 + growth ln(1 + floor(position / period)), forwards and backwards.
TEST(Rope, HeadsGrowWithThePosition) {
    GraphImpl g(s::cpu());
    const std::vector<float> values = s::random_values(4 * 6, 5);
    const Tensor x = s::input(g, {4, 6}, values), pos = s::indices(g, {0, 9, 10, 35}),
                 f = s::input(g, {2}, std::vector<float>{1, 0.1f});
    q::RopeAttr a{.head_dim = 6, .rotated = 4};
    const Tensor plain = q::rope(x, pos, f, a);
    a.growth = 0.5f;
    a.period = 10;
    const Tensor grown = q::rope(x, pos, f, a);
    a.inverse = true;
    const Tensor back = q::rope(grown, pos, f, a);
    for (const Tensor t : {plain, grown, back}) g.output(t);
    g.run();
    const std::vector<float> before = s::get(plain), after = s::get(grown), again = s::get(back);
    const float factors[] = {1, 1, 1 + 0.5f * std::log(2.0f), 1 + 0.5f * std::log(4.0f)};
    for (size_t i = 0; i < values.size(); ++i) {
        EXPECT_NEAR(after[i], before[i] * factors[i / 6], 1e-6) << i;
        EXPECT_NEAR(again[i], values[i] * factors[i / 6] * factors[i / 6], 1e-5) << i;
    }
    a.period = -1;
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::rope(x, pos, f, a); }), "period of -1"));
}

TEST(Rope, WrongSizesAreNamed) {
    GraphImpl g(s::cpu());
    const Tensor x = g.input({4, 16}), pos = g.input({4}, q::DType::i32), f = g.input({4});
    EXPECT_TRUE(s::contains(s::error_of([&] { q::rope(x, pos, f, {.head_dim = 8, .rotated = 7}); }), "7 rotated"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::rope(x, pos, f, {.head_dim = 8, .rotated = 10}); }), "10 rotated"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::rope(x, pos, f, {.head_dim = 5, .rotated = 4}); }), "[4, 16]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::rope(x, pos, f, {.head_dim = 8, .rotated = 6}); }), "[4]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::rope(x, f, f, {.head_dim = 8, .rotated = 8}); }), "i32"));
}

}  // namespace rope_test
