// plan_test.cpp - the memory plan: no two living blocks overlap, on random graphs by brute force; its peak is what a
// run uses; garbage elsewhere does not matter.
#include "tests/support/graph_support.h"

namespace plan_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

// A chain of random operations on earlier results, with gradients, segments, views and updates of states.
void grow(GraphImpl& g, uint64_t seed, int count, bool checkpoint, std::vector<Tensor>& results) {
    q::Rng rng{seed, 1};
    const int64_t rows = 3, n = 10;
    std::vector<Tensor> made{s::input(g, {rows, n}, seed), s::param(g, {rows, n}, seed + 1),
                             s::param(g, {rows, n}, seed + 2)};
    const Tensor w = s::param(g, {n}, seed + 3), sums = s::state(g, {rows, n}, s::random_values(rows * n, seed + 4));
    const auto any = [&] { return made[rng.below(made.size())]; };
    for (int i = 0; i < count; ++i) {
        g.segment = i / 5;
        switch (rng.below(9)) {
            case 0: made.push_back(q::add(any(), any())); break;
            case 1: made.push_back(q::mul(any(), q::scale(any(), 0.3f))); break;
            case 2: made.push_back(q::silu(any())); break;
            case 3: made.push_back(q::rms_norm(any(), w)); break;
            case 4: made.push_back(q::swiglu(any(), any())); break;
            case 5: made.push_back(q::reshape(q::scale(q::reshape(any(), {n, rows}), 1.5f), {rows, n})); break;
            case 6: made.push_back(q::dropout(any(), {0.2f, seed, uint64_t(i)})); break;
            case 7: made.push_back(q::bias(any(), w)); break;
            default: q::accumulate(sums, any()); break;
        }
    }
    g.segment = -1;
    Tensor loss = s::weigh(made.back());
    for (int i = 0; i < 3; ++i) loss = q::add(loss, s::weigh(q::add(any(), made[1])));
    g.backward(loss, checkpoint);
    results = {loss, sums};
    g.output(loss);
    for (const Tensor& p : {made[1], made[2], w}) {
        if (g.grads[size_t(p.id())] < 0) continue;
        const Tensor total = g.state(g.node(p.id()).shape);
        q::accumulate(total, s::grad_of(p));
        results.push_back(total);
    }
}

struct Interval { int64_t first, last, begin, end; int32_t node; bool scratch = false; };

// May node b lie where node a does, which it is the last to read? Then element by element, and it is the only one there
// that b reads.
bool may_replace(const GraphImpl& g, const q::Plan& plan, const Interval& a, const Interval& b) {
    if (a.scratch || b.scratch || a.last != b.first) return false;
    int readings = 0;
    bool allowed = false;
    const auto& src = g.node(b.node).src;
    for (size_t i = 0; i < src.size(); ++i) {
        if (src[i] < 0 || g.root(src[i]) != a.node) continue;
        ++readings;
        allowed = q::op_def(g.node(b.node).op).over >> i & 1 && b.begin == plan.offset[size_t(src[i])] &&
                  g.node(b.node).bytes() == g.node(src[i]).bytes();
    }
    return allowed && readings == 1;
}

// The lives of all blocks, found the slow way: straight from who reads what.
std::vector<Interval> lives(const GraphImpl& g, const q::Plan& plan) {
    std::vector<Interval> all;
    for (size_t at = 0; at < plan.order.size(); ++at) {
        const int32_t id = plan.order[at];
        const q::Node& n = g.node(id);
        if (plan.scratch[size_t(id)] >= 0)
            all.push_back({int64_t(at), int64_t(at), plan.scratch[size_t(id)],
                           plan.scratch[size_t(id)] + g.backend->kernel(n.op)->scratch(g, n), id, true});
        if (g.root(id) != id) continue;
        int64_t last = int64_t(at);
        for (size_t later = at; later < plan.order.size(); ++later) {
            for (const int32_t src : g.node(plan.order[later]).src) {
                if (src >= 0 && g.root(src) == id) last = int64_t(later);
            }
        }
        for (const int32_t o : g.outputs) {
            if (g.root(o) == id) last = int64_t(plan.order.size());
        }
        EXPECT_GE(plan.offset[size_t(id)], 0);
        all.push_back({int64_t(at), last, plan.offset[size_t(id)], plan.offset[size_t(id)] + n.bytes(), id});
    }
    return all;
}

TEST(Plan, RandomGraphsNeverOverlapAndSourcesComeFirst) {
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        GraphImpl g(s::cpu(1));
        std::vector<Tensor> results;
        grow(g, seed, 30, seed % 2 == 0, results);
        const q::Plan plan = q::make_plan(g);
        const std::vector<Interval> all = lives(g, plan);
        int64_t peak = 0;
        for (const Interval& a : all) {
            peak = std::max(peak, a.end);
            EXPECT_EQ(0, a.begin % 64);
            for (const Interval& b : all) {
                if (&a == &b || a.last < b.first || b.last < a.first) continue;
                if (may_replace(g, plan, a, b) || may_replace(g, plan, b, a)) continue;
                EXPECT_TRUE(a.end <= b.begin || b.end <= a.begin)
                    << "seed " << seed << ": nodes " << a.node << " and " << b.node;
            }
        }
        EXPECT_EQ(peak, plan.arena);
        std::vector<bool> done(g.nodes.size(), false);
        for (const int32_t id : plan.order) {
            for (const int32_t src : g.node(id).src) {
                if (src < 0 || g.node(g.root(src)).buffer) continue;
                EXPECT_TRUE(done[size_t(g.root(src))]) << "seed " << seed << " node " << id;
            }
            EXPECT_FALSE(done[size_t(id)]);
            done[size_t(id)] = true;
        }
    }
}

// The same graph, once with a plan and once with an arena of its own for every node, must agree: whatever the plan
// reuses is dead.
TEST(Plan, ResultsEqualThoseWithoutReuse) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        std::vector<std::vector<float>> with, without;
        for (const bool reuse : {true, false}) {
            GraphImpl g(s::cpu(1));
            std::vector<Tensor> results;
            grow(g, seed, 30, seed % 2 == 0, results);
            if (!reuse) {
                for (int32_t i = 0; i < int32_t(g.nodes.size()); ++i) {
                    if (q::op_def(g.node(i).op).computes) g.output(g.handle(i));
                }
            }
            g.prepare();
            // NaN everywhere: a read before a write would show
            std::memset(g.arena->data, 0xff, size_t(g.plan.arena));
            g.run();
            for (const Tensor& t : results) (reuse ? with : without).push_back(s::get(t));
        }
        EXPECT_EQ(with, without) << "seed " << seed;
    }
}

TEST(Plan, ThePredictedPeakIsWhatARunUses) {
    for (uint64_t seed = 50; seed < 60; ++seed) {
        GraphImpl g(s::cpu(2));
        std::vector<Tensor> results;
        grow(g, seed, 40, true, results);
        const int64_t predicted = q::make_plan(g).arena;
        g.run();
        EXPECT_EQ(predicted, g.used);
        EXPECT_EQ(predicted, g.plan.arena);
    }
}

TEST(Plan, AChainNeedsTwoBuffersAndUnreadNodesDoNotRun) {
    GraphImpl g(s::cpu());
    Tensor x = s::input(g, {1, 1000}, 1);
    const Tensor w = s::input(g, {1000}, 2);
    (void)q::rms_norm(x, w);                           // nobody reads it
    for (int i = 0; i < 20; ++i) x = q::rms_norm(x, w);
    g.output(x);
    const q::Plan plan = q::make_plan(g);
    EXPECT_EQ(20u, plan.order.size());
    EXPECT_EQ(4032 + 4000, plan.arena);                // two blocks of 4000 bytes, the second at a multiple of 64
}

TEST(Plan, WhatIsComputedElementByElementTakesThePlaceOfWhatItReadsLast) {
    GraphImpl g(s::cpu());
    const Tensor input = s::input(g, {1000}, 1);
    Tensor x = q::silu(input);                         // an input keeps its place
    for (int i = 0; i < 20; ++i) x = q::scale(q::reshape(q::silu(x), i % 2 ? q::Shape{1000} : q::Shape{10, 100}), 0.5f);
    const Tensor twice = q::add(x, x);                 // read from two sides: a place of its own
    const Tensor kept = q::silu(twice), last = q::mul(twice, kept);
    g.output(kept);                                    // nothing takes its place, nor it that of what is read later
    g.output(last);
    const q::Plan plan = q::make_plan(g);
    const auto at = [&](Tensor t) { return plan.offset[size_t(t.id())]; };
    EXPECT_NE(at(x), at(twice));
    EXPECT_NE(at(twice), at(kept));
    EXPECT_EQ(at(twice), at(last));
    EXPECT_EQ(4032 + 4000, plan.arena);
}

// dgate over up, dup over gate or dy: of the feed-forward's way back no more than gate, up and dy are there at a time.
TEST(Plan, GatedProductsGoBackWithinThreeBuffers) {
    for (const bool by_gelu : {false, true}) {
        GraphImpl g(s::cpu());
        const int64_t rows = 64, n = 256;
        const Tensor x = s::param(g, {rows, n}, 1), w = s::param(g, {n}, 2), v = s::param(g, {n}, 3);
        const Tensor gate = q::rms_norm(x, w), up = q::rms_norm(x, v);
        g.backward(q::sum(by_gelu ? q::geglu(gate, up) : q::swiglu(gate, up)));
        for (const Tensor& p : {x, w, v}) q::accumulate(g.state(g.node(p.id()).shape), s::grad_of(p));
        EXPECT_LT(q::make_plan(g).arena, (3 * rows + 8) * n * 4) << by_gelu;
    }
}

TEST(Plan, GradientsAreAddedUpAsSoonAsTheyExist) {
    GraphImpl g(s::cpu());
    const int layers = 16;
    const int64_t n = 4096;
    std::vector<Tensor> params;
    Tensor x = s::input(g, {1, n}, 1);
    for (int i = 0; i < layers; ++i) {    // keeps nothing for the backward pass; each gradient is a result of its own
        params.push_back(s::param(g, {n}, uint64_t(i)));
        x = q::scale(q::bias(x, params.back()), 0.5f);
    }
    const Tensor loss = q::sum(x);
    g.backward(loss);
    for (const Tensor& p : params) q::accumulate(g.state({n}), s::grad_of(p));
    g.output(loss);
    EXPECT_LT(q::make_plan(g).arena, 4 * n * 4);
}

TEST(Plan, UpdatesOfOneStateKeepTheirOrder) {
    GraphImpl g(s::cpu());
    const Tensor total = s::state(g, {4}, {1, 2, 3, 4}), x = s::input(g, {4}, std::vector<float>{1, 1, 1, 1});
    const Tensor twice = q::scale(x, 2);
    const Tensor before = q::scale(total, 1);          // reads the state as it was
    const Tensor after = q::accumulate(total, twice);
    const Tensor seen = q::scale(after, 10);
    g.output(before);
    g.output(seen);
    g.run();
    EXPECT_EQ((std::vector<float>{1, 2, 3, 4}), s::get(before));
    EXPECT_EQ((std::vector<float>{30, 40, 50, 60}), s::get(seen));
    EXPECT_EQ((std::vector<float>{3, 4, 5, 6}), s::get(total));
    EXPECT_EQ((std::vector<float>{3, 4, 5, 6}), s::get(after));
}

}  // namespace plan_test
