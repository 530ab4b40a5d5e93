// linear_cross_entropy_test.cpp - the fused vocabulary projection against explicit logits, and what it refuses.
#include "src/cpu/cpu.h"
#include "tests/ops/samples.h"
#include "tests/support/op_golden.h"

#include <gtest/gtest.h>

namespace linear_cross_entropy_test {

using qlora::DType;
using qlora::Errc;
using qlora::GraphImpl;
using qlora::Tensor;

constexpr int64_t rows = 37, n = 64, vocabulary = 301;

// The mean nll of trained rows and its gradient towards x, by either way.
std::pair<float, std::vector<float>> mean_loss(bool fused, const std::vector<int32_t>& targets, bool checkpoint = false,
                                               int64_t chunk = 0, float cap = 0, int64_t words = vocabulary) {
    GraphImpl g(qlora::make_cpu_backend(2, qlora::Compute::f32));
    const Tensor x = g.param({rows, n}), t = g.input({rows}, DType::i32),
                 w = g.weight(samples::stored_weight({words, n}, 5));
    int64_t trained = 0;
    for (int32_t target : targets) trained += target >= 0;
    g.segment = checkpoint ? 0 : -1;
    const auto nll = [&] {
        return g.add(qlora::Op::linear_cross_entropy, {x, w, t},
                     qlora::attr_of(qlora::CrossEntropyAttr{.chunk = chunk, .with_grad = true, .cap = cap}));
    };
    const auto logits = [&] { return cap > 0 ? qlora::softcap(qlora::matmul(x, w), cap) : qlora::matmul(x, w); };
    const Tensor loss = fused ? qlora::scale(qlora::sum(nll()), 1 / float(trained))
                              : qlora::cross_entropy(logits(), t);
    g.segment = -1;
    g.backward(loss, checkpoint);
    g.output(loss);
    const Tensor dx = g.handle(g.grads[size_t(x.id())]);
    g.output(dx);
    std::vector<float> values = samples::normal_values(rows * n, 8), gradient(values.size());
    for (float& v : values) v *= 0.3f;
    g.write(x, values.data(), rows * n * 4);
    g.write(t, targets.data(), rows * 4);
    g.run();
    float value = 0;
    g.read(loss, &value, 4);
    g.read(dx, gradient.data(), rows * n * 4);
    return {value, gradient};
}

TEST(LinearCrossEntropy, EqualsCrossEntropyOfExplicitLogits) {
    for (bool gaps : {false, true}) {
        const std::vector<int32_t> targets = samples::ids(rows, vocabulary, gaps);
        const auto [loss, dx] = mean_loss(true, targets);
        const auto [want_loss, want_dx] = mean_loss(false, targets);
        EXPECT_NEAR(loss, want_loss, 1e-5 * want_loss);
        // gradients are of order 1 / rows
        for (size_t i = 0; i < dx.size(); ++i) ASSERT_NEAR(dx[i], want_dx[i], 1e-6) << i;
        const auto [cut_loss, cut_dx] = mean_loss(true, targets, false, 5);    // several chunks, the last one shorter
        EXPECT_NEAR(cut_loss, want_loss, 1e-5 * want_loss);
        for (size_t i = 0; i < dx.size(); ++i) ASSERT_NEAR(cut_dx[i], want_dx[i], 1e-6) << i;
        const auto [again, again_dx] = mean_loss(true, targets, true);
        EXPECT_EQ(loss, again);                        // recomputed in a checkpointed segment: the same numbers
        EXPECT_EQ(dx, again_dx);
    }
}

TEST(LinearCrossEntropy, CappedLogitsEqualExplicitOnes) {
    for (const int64_t words : {vocabulary, int64_t(2500)})    // one piece of the softmax, and three
        for (const float cap : {0.5f, 3.0f, 30.0f}) {          // logits spread like 2.8
            std::vector<int32_t> targets = samples::ids(rows, vocabulary, true);
            for (size_t i = 0; i < targets.size(); i += 2) targets[i] = int32_t(words - 1 - 61 * int64_t(i) % words);
            const auto [loss, dx] = mean_loss(true, targets, false, 5, cap, words);
            const auto [want_loss, want_dx] = mean_loss(false, targets, false, 0, cap, words);
            EXPECT_NEAR(loss, want_loss, 1e-5 * want_loss);
            for (size_t i = 0; i < dx.size(); ++i) ASSERT_NEAR(dx[i], want_dx[i], 1e-6) << "cap " << cap << " at " << i;
        }
}

TEST(LinearCrossEntropy, CappedLogitsEqualPyTorch) {
    const auto golden = [](const char* name) { return op_golden::floats("capped_cross_entropy", name); };
    for (const bool with_grad : {true, false}) {
        GraphImpl g(graph_support::cpu());
        const Tensor x = with_grad ? g.param({4, 6}) : g.input({4, 6});
        graph_support::set(x, golden("x"));
        const Tensor w = graph_support::input(g, {9, 6}, golden("w"));
        const Tensor t = graph_support::indices(g, op_golden::integers("capped_cross_entropy", "targets"));
        const Tensor nll = qlora::linear_cross_entropy(x, w, t, with_grad, golden("cap")[0]);
        if (with_grad) op_golden::run_with_gradient(nll, golden("dy"), {x});
        else graph_support::value_of(nll);
        op_golden::expect_near(graph_support::get(nll), golden("nll"), 1e-6);
        if (with_grad) op_golden::expect_near(graph_support::get(graph_support::grad_of(x)), golden("dx"), 2e-6);
    }
}

TEST(LinearCrossEntropy, RowsWithoutTargetGiveZeros) {
    GraphImpl g(qlora::make_cpu_backend(2, qlora::Compute::f32));
    const Tensor x = g.input({rows, n}), t = g.input({rows}, DType::i32),
                 w = g.weight(samples::stored_weight({vocabulary, n}, 5));
    const Tensor nll = qlora::linear_cross_entropy(x, w, t, true);
    g.output(nll);
    const std::vector<float> values(rows * n, NAN);    // never looked at
    const std::vector<int32_t> targets(rows, -1);
    g.write(x, values.data(), rows * n * 4);
    g.write(t, targets.data(), rows * 4);
    g.run();
    std::vector<float> got(rows, 7);
    g.read(nll, got.data(), rows * 4);
    for (float v : got) ASSERT_EQ(v, 0);
    const float* kept = static_cast<const float*>(g.address(nll.id())) + rows;
    for (int64_t i = 0; i < rows * n; ++i) ASSERT_EQ(kept[i], 0);
}

TEST(LinearCrossEntropy, MemoryDoesNotGrowWithRowsTimesVocabulary) {
    const int64_t many = 4096, wide = 65536;           // explicit logits: 1 GiB, twice with their gradient
    GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
    const Tensor x = g.input({many, n}), t = g.input({many}, DType::i32), w = g.input({wide, n});
    g.output(qlora::linear_cross_entropy(x, w, t, true));
    EXPECT_LT(qlora::make_plan(g).arena, int64_t(40) << 20);
}

void expect_refused(Errc code, const char* text, const std::function<void()>& f) {
    try {
        f();
        ADD_FAILURE() << "accepted: " << text;
    } catch (const qlora::Error& e) {
        EXPECT_EQ(e.code, code) << e.what();
        EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
}

TEST(LinearCrossEntropy, Refusals) {
    const auto with = [](bool with_grad, bool train_w) {
        GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
        const Tensor x = g.param({2, 4}), w = train_w ? g.param({3, 4}) : g.input({3, 4}), t = g.input({2}, DType::i32);
        const int32_t targets[] = {0, 3};
        g.write(t, targets, 8);
        g.backward(qlora::sum(qlora::linear_cross_entropy(x, w, t, with_grad)));
        g.output(g.handle(g.grads[size_t(x.id())]));
        g.run();
    };
    expect_refused(Errc::argument, "target 3 of row 1 is outside the vocabulary of 3", [&] { with(true, false); });
    expect_refused(Errc::argument, "without with_grad", [&] { with(false, false); });
    expect_refused(Errc::unsupported, "use matmul and cross_entropy", [&] { with(true, true); });
}

}  // namespace linear_cross_entropy_test
