// linear_cross_entropy_test.cpp - the fused vocabulary projection against explicit logits, and what it refuses.
#include "src/cpu/cpu.h"
#include "tests/ops/samples.h"

#include <gtest/gtest.h>

namespace linear_cross_entropy_test {

using qlora::DType;
using qlora::Errc;
using qlora::GraphImpl;
using qlora::Tensor;

constexpr int64_t rows = 37, n = 64, vocabulary = 301;

// The mean nll of trained rows and its gradient towards x, by either way.
std::pair<float, std::vector<float>> mean_loss(bool fused, const std::vector<int32_t>& targets, bool checkpoint = false,
                                               int64_t chunk = 0) {
    GraphImpl g(qlora::make_cpu_backend(2, qlora::Compute::f32));
    const Tensor x = g.param({rows, n}), t = g.input({rows}, DType::i32),
                 w = g.weight(samples::stored_weight({vocabulary, n}, 5));
    int64_t trained = 0;
    for (int32_t target : targets) trained += target >= 0;
    g.segment = checkpoint ? 0 : -1;
    const auto nll = [&] {
        return g.add(qlora::Op::linear_cross_entropy, {x, w, t},
                     qlora::attr_of(qlora::CrossEntropyAttr{.chunk = chunk, .with_grad = true}));
    };
    const Tensor loss = fused ? qlora::scale(qlora::sum(nll()), 1 / float(trained))
                              : qlora::cross_entropy(qlora::matmul(x, w), t);
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
