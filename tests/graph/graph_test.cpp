// graph_test.cpp - building, leaves, shared memory and misuse; and the public Graph, which trains a small network from
// nothing.
#include "src/base/access.h"
#include "tests/support/graph_support.h"

namespace graph_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(GraphNodes, AShapeErrorNamesBothShapes) {
    GraphImpl g(s::cpu());
    const Tensor a = g.input({2, 3}), b = g.input({3, 2});
    for (const std::string& text : {s::error_of([&] { q::add(a, b); }), s::error_of([&] { q::mul(a, b); }),
                                    s::error_of([&] { (void)(a + b); }), s::error_of([&] { q::swiglu(a, b); })}) {
        EXPECT_TRUE(s::contains(text, "[2, 3]") && s::contains(text, "[3, 2]")) << text;
    }
    EXPECT_EQ(2u, g.nodes.size());                     // nothing was appended
}

TEST(GraphNodes, Misuse) {
    GraphImpl g(s::cpu()), other(s::cpu());
    const Tensor a = g.input({4}), b = other.input({4}), ids = g.input({4}, q::DType::i32);
    EXPECT_TRUE(s::contains(s::error_of([&] { q::add(a, b); }), "different graphs"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::add(a, Tensor{}); }), "empty Tensor"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::add(a, ids); }), "i32"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.input({}); }), "dimension"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.input({3, 0}); }), "[3, 0]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.input({3}, q::DType::q4_0); }), "expected f32 or i32"));
    EXPECT_FALSE(s::error_of([&] { g.input({int64_t(1) << 40, int64_t(1) << 40}); }).empty());
    EXPECT_TRUE(s::contains(s::error_of([&] { g.input({int64_t(1) << 58}); }), "bytes"));
    EXPECT_TRUE(s::contains(s::error_of([&] { s::set(a, std::vector<float>{1, 2}); }), "2 values"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.run(); }), "nothing to compute"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.add(q::Op::input, {}); }), "leaf"));
    const Tensor y = q::silu(a), z = q::silu(y);
    EXPECT_TRUE(s::contains(s::error_of([&] { s::set(y, std::vector<float>{1, 2, 3, 4}); }), "silu"));
    EXPECT_TRUE(s::contains(s::error_of([&] { s::get(y); }), "run()"));
    g.output(z);
    g.run();
    EXPECT_TRUE(s::contains(s::error_of([&] { s::get(y); }), "not kept"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::silu(z); }), "no more nodes"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.output(y); }), "planned"));
}

TEST(GraphNodes, AStoredWeightIsFrozen) {
    GraphImpl g(s::cpu());
    const Tensor w = g.weight(std::make_shared<q::Weight>(q::dense_weight("norm", {4}, {1, 2, 3, 4})));
    const Tensor x = s::param(g, {2, 4}, 1);
    EXPECT_FALSE(g.wants_grad(w.id()));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::mul(x, w); }), "norm"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::reshape(w, {2, 2}); }), "norm"));
    g.backward(s::weigh(q::rms_norm(x, w) + w));
    EXPECT_GE(g.grads[size_t(x.id())], 0);
    EXPECT_LT(g.grads[size_t(w.id())], 0);
}

TEST(GraphNodes, SlicesShareOneBufferBetweenGraphs) {
    const auto backend = s::cpu();
    const q::BufferRef flat = backend->allocate(8 * 4);
    GraphImpl one(backend), two(backend);
    const Tensor all = one.state({8}, flat), high = two.state({4}, q::slice(flat, 16, 16));
    s::set(all, std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
    EXPECT_EQ((std::vector<float>{4, 5, 6, 7}), s::get(high));
    q::accumulate(high, s::input(two, {4}, std::vector<float>{10, 10, 10, 10}));
    two.run();
    EXPECT_EQ((std::vector<float>{0, 1, 2, 3, 14, 15, 16, 17}), s::get(all));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::slice(flat, 20, 16); }), "of a buffer of 32"));
    EXPECT_TRUE(s::contains(s::error_of([&] { one.state({9}, flat); }), "32"));
}

TEST(GraphNodes, ViewsOfAStateAreItsMemory) {
    GraphImpl g(s::cpu());
    const Tensor all = s::state(g, {2, 3}, {1, 2, 3, 4, 5, 6}), row = q::view(all, 3, {3});
    const Tensor doubled = q::scale(row, 2), inner = q::view(q::view(all, 2, {4}), 1, {2});
    q::accumulate(row, s::input(g, {3}, std::vector<float>{1, 1, 1}));
    g.output(doubled);
    g.run();
    EXPECT_EQ((std::vector<float>{8, 10, 12}), s::get(doubled));
    EXPECT_EQ((std::vector<float>{1, 2, 3, 5, 6, 7}), s::get(all));
    EXPECT_EQ((std::vector<float>{5, 6, 7}), s::get(row));
    EXPECT_EQ((std::vector<float>{5, 6}), s::get(inner));
}

TEST(GraphNodes, BackendNamesItself) {
    EXPECT_TRUE(s::cpu(2)->name().starts_with("cpu, 2 threads, "));
    EXPECT_TRUE(s::cpu(1)->name().starts_with("cpu, 1 thread, "));
    EXPECT_GT(s::cpu(1)->memory_free(), 1 << 20);
    const q::BufferRef b = s::cpu(1)->allocate(100);
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(b->data) % 64);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(0, static_cast<char*>(b->data)[i]);
}

// ---- The public Graph.

q::Graph public_graph(int threads = 2) { return q::Graph(q::handle_of<q::Backend>(s::cpu(threads))); }

// y = silu(x W1^T + b1) W2^T + b2 learns XOR.
std::vector<float> train_xor(int threads, double* planned = nullptr, double* used = nullptr) {
    q::Graph g = public_graph(threads);
    const int64_t hidden = 8;
    const Tensor x = g.input({4, 2}), classes = g.input({4}, q::DType::i32);
    const Tensor w1 = g.param({hidden, 2}), b1 = g.param({hidden}), w2 = g.param({2, hidden}), b2 = g.param({2});
    const Tensor loss = q::cross_entropy(q::matmul(q::silu(q::matmul(x, w1) + b1), w2) + b2, classes);
    g.backward(loss);
    g.write(x, std::vector<float>{0, 0, 0, 1, 1, 0, 1, 1});
    g.write(classes, std::vector<int32_t>{0, 1, 1, 0});
    g.write(w1, s::random_values(hidden * 2, 1));
    g.write(w2, s::random_values(hidden * 2, 2));
    if (planned) *planned = double(g.planned_bytes());
    std::vector<float> losses;
    const q::AdamW options{.max_grad_norm = 1};
    for (int i = 0; i < 200; ++i) {
        g.run();
        losses.push_back(g.read(loss)[0]);
        g.step(0.05f, options);
    }
    if (used) *used = double(g.used_bytes());
    return losses;
}

TEST(PublicGraph, TrainsANetworkFromNothing) {
    double planned = 0, used = 0;
    const std::vector<float> losses = train_xor(2, &planned, &used);
    EXPECT_GT(losses.front(), 0.5f);
    EXPECT_LT(losses.back(), 0.01f);
    EXPECT_GT(planned, 0);
    EXPECT_EQ(planned, used);
    EXPECT_EQ(losses, train_xor(1));
}

TEST(PublicGraph, ReadsAnyResultAndRefusesStaleOnes) {
    q::Graph g = public_graph();
    const Tensor x = g.input({3}), p = g.param({3});
    const Tensor inner = x * p, loss = q::sum(q::silu(inner) * 2.0f);
    g.backward(loss);
    g.write(x, std::vector<float>{1, 2, 3});
    g.write(p, std::vector<float>{1, -1, 0.5f});
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)g.read(loss); }), "run()"));
    g.run();
    const float before = g.read(loss)[0];
    EXPECT_EQ((std::vector<float>{1, -2, 1.5f}), g.read(inner));
    EXPECT_EQ(before, g.read(loss)[0]);
    EXPECT_EQ(g.used_bytes(), g.planned_bytes());
    g.write(p, std::vector<float>{1, 1, 1});
    EXPECT_EQ((std::vector<float>{1, -2, 1.5f}), g.read(inner));                // kept by now: of the last run
    const Tensor outer = g.grad(inner);
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)g.read(outer); }), "have changed"));
    g.run();
    EXPECT_EQ(3u, g.read(outer).size());
    EXPECT_EQ((std::vector<float>{1, 2, 3}), g.read(inner));
}

TEST(PublicGraph, StepIsAdamWWithClipping) {
    q::Graph g = public_graph();
    const Tensor a = g.param({2}), b = g.param({1}), x = g.input({2}), unused = g.param({3});
    const Tensor loss = q::sum(a * x) + b * 12.0f;
    g.backward(loss);
    g.write(x, std::vector<float>{3, 4});
    g.write(a, std::vector<float>{1, 1});
    q::AdamW o{.max_grad_norm = 6.5f};                 // the norm of (3, 4, 12) is 13: halved
    EXPECT_TRUE(s::contains(s::error_of([&] { g.step(0.1f, o); }), "run()"));
    g.run();
    g.step(0.1f, o);
    // Adam's first step is the learning rate, whatever the gradient
    for (const float v : g.read(a)) EXPECT_NEAR(0.9f, v, 1e-6);
    EXPECT_NEAR(-0.1f, g.read(b)[0], 1e-6);
    // Second step by hand for b, gradient 12 again but not clipped: m = 0.1 * 6 * 0.9 + 0.1 * 12, v likewise with
    // 0.001.
    o.max_grad_norm = 0;
    g.run();
    g.step(0.1f, o);
    const double m = (0.6 * 0.9 + 1.2) / (1 - 0.81), v = (0.001 * 36 * 0.999 + 0.001 * 144) / (1 - 0.999 * 0.999);
    EXPECT_NEAR(-0.1 - 0.1 * m / std::sqrt(v), g.read(b)[0], 1e-5);
    EXPECT_EQ((std::vector<float>{0, 0, 0}), g.read(unused));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.step(0.1f, {.bits = 8}); }), "8 bits, expected 32"));
}

TEST(PublicGraph, ReadingMoreBetweenStepsDoesNotDisturbThem) {
    std::vector<std::vector<float>> learnt;
    for (const bool curious : {false, true}) {
        q::Graph g = public_graph();
        const Tensor x = g.input({2, 6}), w = g.param({6}), b = g.param({6});
        const Tensor inner = q::silu(q::rms_norm(x, w) + b), outer = inner * inner, loss = q::sum(outer * 0.5f);
        g.backward(loss);
        g.write(x, s::random_values(12, 1));
        g.write(w, s::random_values(6, 2));
        for (int i = 0; i < 6; ++i) {
            g.run();
            if (curious && i == 2) (void)g.read(inner);      // plans anew: gradients move
            if (curious && i == 4) (void)g.read(outer);
            g.step(0.1f);
        }
        learnt.push_back(g.read(w));
        learnt.push_back(g.read(b));
    }
    EXPECT_EQ(learnt[0], learnt[2]);
    EXPECT_EQ(learnt[1], learnt[3]);
}

TEST(PublicGraph, ANotFiniteGradientChangesNothing) {
    q::Graph g = public_graph();
    const Tensor a = g.param({1}), x = g.input({1}), loss = q::sum(a * x);
    g.backward(loss);
    g.write(a, std::vector<float>{2});
    g.write(x, std::vector<float>{INFINITY});
    g.run();
    EXPECT_TRUE(s::contains(s::error_of([&] { g.step(0.1f); }), "not finite"));
    EXPECT_EQ(2, g.read(a)[0]);
}

TEST(PublicGraph, GradAsksForTheRightThing) {
    q::Graph g = public_graph();
    const Tensor p = g.param({2}), x = g.input({2});
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)g.grad(p); }), "backward()"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.step(1); }), "backward()"));
    const Tensor loss = q::sum(p * x);
    g.backward(loss);
    EXPECT_EQ((q::Shape{2}), g.grad(p).shape());
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)g.grad(x); }), "no gradient flows"));
    EXPECT_TRUE(s::contains(s::error_of([&] { g.write(x, std::vector<int32_t>{1, 2}); }), "i32"));
    const Tensor w = p.graph()->weight(std::make_shared<q::Weight>(q::dense_weight("blk.0.q", {2}, {5, 6})));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)g.grad(w); }), "blk.0.q"));
    EXPECT_EQ((std::vector<float>{5, 6}), g.read(w));
    q::Graph moved = std::move(g);
    moved.write(x, std::vector<float>{1, 2});
    moved.run();
    EXPECT_EQ((std::vector<float>{1, 2}), moved.read(moved.grad(p)));
}

}  // namespace graph_test
