// autograd_test.cpp - gradients of composites against finite differences; checkpointing changes the memory and not a
// single byte of the result.
#include "tests/support/graph_support.h"

namespace autograd_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Autograd, ValuesThatAreUsedSeveralTimes) {
    GraphImpl g(s::cpu());
    const Tensor a = s::param(g, {3, 4}, 1), b = s::param(g, {3, 4}, 2);
    const Tensor c = q::mul(a, b), d = q::silu(c), e = q::add(d, c), f = q::mul(e, a);
    s::check_gradients(s::weigh(q::add(f, q::mul(f, f))), {a, b});
}

TEST(Autograd, OneParamAsBothSources) {
    GraphImpl g(s::cpu());
    const Tensor a = s::param(g, {5}, 3);
    s::check_gradients(q::sum(q::mul(a, a)), {a});
}

TEST(Autograd, ThroughNormRopeBiasAndViews) {
    GraphImpl g(s::cpu());
    const Tensor x = s::param(g, {3, 8}, 4), w = s::param(g, {8}, 5), b = s::param(g, {8}, 6),
                 pos = s::indices(g, {0, 5, 2});
    const Tensor y = q::rope(q::bias(q::rms_norm(x, w), b), pos, 2);
    const Tensor z = q::swiglu(q::reshape(y, {6, 4}), q::scale(q::reshape(x, {6, 4}), 0.5f));
    s::check_gradients(s::weigh(z), {x, w, b});
}

// A small residual network: `layers` blocks, each a segment of its own.
struct Net {
    GraphImpl g;
    std::vector<Tensor> params;
    Tensor loss;
    Net(int layers, int64_t rows, int64_t n, int threads = 2, float drop = 0) : g(s::cpu(threads)) {
        Tensor x = s::input(g, {rows, n}, 11);
        for (int i = 0; i < layers; ++i) {
            const Tensor w = s::param(g, {n}, 20 + uint64_t(i)), b = s::param(g, {n}, 40 + uint64_t(i));
            params.push_back(w);
            params.push_back(b);
            g.segment = i;
            const Tensor h = q::rms_norm(x, w), u = q::silu(q::bias(h, b));
            const Tensor d = q::dropout(q::swiglu(h, q::mul(u, u)), {drop, 5, uint64_t(i)});
            x = q::add(x, q::scale(d, 0.5f));
            g.segment = -1;
        }
        loss = s::weigh(x);
    }
    void train(bool checkpoint) {
        g.backward(loss, checkpoint);
        g.output(loss);
        for (const Tensor& p : params) g.output(s::grad_of(p));
        g.run();
    }
};

TEST(Autograd, CheckpointedAgainstFiniteDifferences) {
    Net net(3, 2, 4);
    s::check_gradients(net.loss, net.params, true);
}

TEST(Autograd, CheckpointingKeepsTheBytesAndSavesMemory) {
    for (const float drop : {0.0f, 0.25f}) {
        Net plain(6, 64, 96, 2, drop), saving(6, 64, 96, 1, drop);
        plain.g.set_step(3);
        saving.g.set_step(3);
        plain.train(false);
        saving.train(true);
        EXPECT_EQ(s::get(plain.loss), s::get(saving.loss));
        for (size_t i = 0; i < plain.params.size(); ++i)
            EXPECT_EQ(s::get(s::grad_of(plain.params[i])), s::get(s::grad_of(saving.params[i]))) << i;
        // Six layers keep about seven tensors each without it, and one with it (plus the seven of the one that is
        // recomputed).
        EXPECT_LT(saving.g.plan.arena * 2, plain.g.plan.arena);
        EXPECT_GT(saving.g.plan.order.size(), plain.g.plan.order.size());
    }
}

TEST(Autograd, ARecomputedCopyThatNobodyReadsDoesNotRun) {
    Net net(2, 4, 4);
    net.train(true);
    int copies = 0, run = 0;
    for (const q::Node& n : net.g.nodes) copies += n.origin >= 0;
    for (const int32_t id : net.g.plan.order) run += net.g.node(id).origin >= 0;
    EXPECT_EQ(16, copies);                             // 8 nodes a segment
    EXPECT_EQ(8, run);    // norm, bias, silu and the square, of each: nobody needs the others again
}

TEST(Autograd, DropoutRecomputesTheSameMaskAndAnotherOneNextStep) {
    Net net(2, 8, 16, 2, 0.5f);
    net.train(true);
    const float first = s::get(net.loss)[0];
    net.g.run();
    EXPECT_EQ(first, s::get(net.loss)[0]);
    net.g.set_step(1);
    net.g.run();
    EXPECT_NE(first, s::get(net.loss)[0]);
}

TEST(Autograd, GradientsOnlyWhereAParamIsReached) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {4}, 1), p = s::param(g, {4}, 2), unused = s::param(g, {4}, 3);
    const Tensor only_inputs = q::silu(x), y = q::mul(only_inputs, p);
    EXPECT_FALSE(g.wants_grad(only_inputs.id()));
    EXPECT_TRUE(g.wants_grad(y.id()));
    g.backward(q::sum(y));
    EXPECT_LT(g.grads[size_t(x.id())], 0);
    EXPECT_LT(g.grads[size_t(only_inputs.id())], 0);
    EXPECT_LT(g.grads[size_t(unused.id())], 0);
    EXPECT_GE(g.grads[size_t(p.id())], 0);
}

TEST(Autograd, WrongUse) {
    GraphImpl g(s::cpu());
    const Tensor x = s::input(g, {2, 3}, 1), p = s::param(g, {2, 3}, 2);
    EXPECT_TRUE(s::contains(s::error_of([&] { g.backward(q::mul(x, p)); }), "[2, 3]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.backward(q::sum(x)); }), "does not depend on any param"));
    const Tensor loss = q::sum(q::mul(x, p));
    g.backward(loss);
    EXPECT_TRUE(s::contains(s::error_of([&] { g.backward(loss); }), "already"));
    EXPECT_TRUE(s::contains(s::error_of([&] {
                                g.accumulate(p.id(), x);
                                g.accumulate(p.id(), s::input(g, {5}, 1));
                            }),
                            "[5]"));
}

}  // namespace autograd_test
