// sweep_test.cpp - one sweep over every operation of ops.def: shape errors, finite differences, fused against composed,
// thread counts, instruction sets. What an operation is fed stands in samples.h.
#include "tests/ops/samples.h"
#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sweep_test {

using qlora::GraphImpl;
using qlora::Kernels;
using qlora::Op;
using qlora::Tensor;
using samples::Kind;
using samples::Sample;

std::string title(const Sample& s) {
    return std::string(qlora::op_def(s.op).name) + (s.note.empty() ? "" : ", " + s.note);
}

// One graph of a sample: y, and with `backward` the gradients of sum(y * r) towards its trained sources, r fixed and
// random.
struct Trial {
    GraphImpl g;
    const Sample& sample;
    std::vector<Tensor> leaves;
    Tensor y, r;
    std::vector<std::vector<float>> values;            // of the float leaves
    std::vector<float> r_values;

    Trial(const Sample& s, int threads, const Kernels& set, bool backward, bool composed = false)
        : g(qlora::make_cpu_backend(threads, qlora::Compute::f32)), sample(s) {
        g.backend->host().kernels = &set;
        for (size_t i = 0; i < s.sources.size(); ++i) leaves.push_back(leaf(i, s.sources[i].shape));
        y = s.build(g, leaves);
        if (composed) y = qlora::op_def(s.op).composed(g, g.node(y.id()));
        g.output(y);
        r = g.input(g.node(y.id()).shape);
        r_values = samples::normal_values(g.node(r.id()).elements(), 99);
        if (!backward || !g.node(y.id()).wants_grad) return;
        g.backward(qlora::sum(qlora::mul(y, r)));
        for (size_t i = 0; i < leaves.size(); ++i)
            if (s.sources[i].kind == Kind::trained) g.output(grad(i));
    }

    Tensor leaf(size_t i, const qlora::Shape& shape) {
        const samples::Source& source = sample.sources[i];
        values.emplace_back();
        if (source.kind == Kind::index) return g.input(shape, qlora::DType::i32);
        if (source.kind == Kind::codes) return g.state(shape, {}, qlora::DType::u8);
        if (source.kind == Kind::stored) return g.weight(samples::stored_weight(shape, i));
        values.back() = samples::normal_values(qlora::elements_of(shape), i + 1);
        if (source.positive) for (float& v : values.back()) v = std::abs(v);
        return source.kind == Kind::trained ? g.param(shape)
               : source.kind == Kind::state ? g.state(shape)
                                            : g.input(shape);
    }
    bool has_grad(size_t i) const { return !g.grads.empty() && sample.sources[i].kind == Kind::trained; }
    Tensor grad(size_t i) { return g.handle(g.grads[size_t(leaves[i].id())]); }

    std::vector<float> run() {                         // writes every leaf first: some operations change them
        for (size_t i = 0; i < leaves.size(); ++i) {
            const samples::Source& source = sample.sources[i];
            if (source.kind == Kind::index)
                g.write(leaves[i], source.indices.data(), int64_t(source.indices.size()) * 4);
            else if (source.kind == Kind::codes) {
                const std::vector<uint8_t> bytes(source.indices.begin(), source.indices.end());
                g.write(leaves[i], bytes.data(), int64_t(bytes.size()));
            } else if (source.kind != Kind::stored) g.write(leaves[i], values[i].data(), int64_t(values[i].size()) * 4);
        }
        g.write(r, r_values.data(), int64_t(r_values.size()) * 4);
        g.run();
        return read(y);
    }
    std::vector<float> read(Tensor t) const {
        std::vector<float> v(size_t(g.node(t.id()).elements()));
        g.read(t, v.data(), int64_t(v.size()) * 4);
        return v;
    }
    double loss() {                                    // in double, so that differences of it keep their digits
        const std::vector<float> now = run();
        double sum = 0;
        for (size_t i = 0; i < now.size(); ++i) sum += double(now[i]) * r_values[i];
        return sum;
    }
    std::vector<std::vector<float>> results() {        // y and every gradient
        std::vector<std::vector<float>> all{run()};
        for (size_t i = 0; i < leaves.size(); ++i)
            if (has_grad(i)) all.push_back(read(grad(i)));
        return all;
    }
};

double largest(const std::vector<float>& v) {
    double m = 0;
    for (float x : v) m = std::max(m, std::abs(double(x)));
    return m;
}

void expect_close(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b, double tolerance,
                  const std::string& what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    for (size_t k = 0; k < a.size(); ++k) {
        ASSERT_EQ(a[k].size(), b[k].size()) << what;
        double worst = 0;
        for (size_t i = 0; i < a[k].size(); ++i) {
            ASSERT_TRUE(std::isfinite(a[k][i])) << what << ", result " << k << " at " << i;
            worst = std::max(worst, std::abs(double(a[k][i]) - b[k][i]));
        }
        EXPECT_LE(worst, tolerance * std::max(1.0, largest(b[k]))) << what << ", " << (k ? "gradient " : "value ") << k;
    }
}

TEST(Sweep, EveryOperationIsCovered) {
    std::map<Op, std::set<Op>> executed;               // by the samples of an operation
    const std::vector<Sample> all = samples::all(false);
    for (const Sample& s : all) {
        Trial t(s, 1, qlora::best_kernels(), true);
        t.run();
        for (const int32_t id : t.g.plan.order) executed[s.op].insert(t.g.node(id).op);
    }
    for (int i = 0; i < int(Op::count); ++i) {
        const Op op = Op(i);
        if (samples::leaves().count(op)) continue;
        const auto forward = samples::gradient_of().find(op);
        const Op by = forward == samples::gradient_of().end() ? op : forward->second;
        const bool view = !qlora::op_def(op).computes;                      // runs nothing
        EXPECT_TRUE(executed.count(by) && (view || executed[by].count(op)))
            << qlora::op_def(op).name << " is run by no sample; add one to tests/ops/samples.h";
    }
}

TEST(Sweep, WrongShapesAreRefusedByName) {
    for (const Sample& s : samples::all(false)) {
        for (const samples::Wrong& wrong : s.wrong) {
            GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
            Sample broken = s;
            broken.sources[wrong.source].shape = wrong.shape;
            try {
                Trial t(broken, 1, *qlora::all_kernels().back(), false);
                ADD_FAILURE() << title(s) << " accepts source " << wrong.source << " of shape "
                              << qlora::str(wrong.shape);
            } catch (const qlora::Error& e) {
                EXPECT_EQ(e.code, qlora::Errc::shape) << e.what();
                const std::string text = e.what();
                EXPECT_NE(text.find(qlora::str(wrong.shape)), std::string::npos)
                    << title(s) << " does not name " << qlora::str(wrong.shape) << ": " << text;
                if (wrong.other < 0) continue;
                const std::string other = qlora::str(s.sources[size_t(wrong.other)].shape);
                EXPECT_NE(text.find(other), std::string::npos)
                    << title(s) << " does not name " << other << ": " << text;
            }
        }
    }
}

// Central differences of step h and h / 2, extrapolated: the error is of fourth order in h. With h = 0.04 the terms
// left out are below 1e-5, and rounding of y (1e-7 of its size, divided by h) is of the same order: 1e-3 of the largest
// derivative leaves a wide margin for both and none for a wrong formula.
TEST(Sweep, GradientsMatchFiniteDifferences) {
    for (const Sample& s : samples::all(false)) {
        Trial exact(s, 1, qlora::best_kernels(), true), probe(s, 1, qlora::best_kernels(), false);
        if (exact.g.grads.empty()) continue;
        exact.run();
        for (size_t i = 0; i < s.sources.size(); ++i) {
            if (!exact.has_grad(i)) continue;
            const std::vector<float> got = exact.read(exact.grad(i));
            std::vector<double> want;
            for (float& v : probe.values[i]) {
                const float kept = v;
                const auto difference = [&](float h) {
                    v = kept + h;
                    const float up = v;
                    const double above = probe.loss();
                    v = kept - h;
                    const double step = double(up) - double(v), below = probe.loss();
                    v = kept;
                    return (above - below) / step;
                };
                want.push_back((4 * difference(0.02f) - difference(0.04f)) / 3);
            }
            double scale = 1;
            for (double d : want) scale = std::max(scale, std::abs(d));
            for (size_t k = 0; k < want.size(); ++k)
                ASSERT_NEAR(got[k], want[k], 1e-3 * scale) << title(s) << ", source " << i << " element " << k;
        }
    }
}

TEST(Sweep, FusedEqualsComposed) {
    int compared = 0;
    for (bool large : {false, true}) {
        for (const Sample& s : samples::all(large)) {
            if (!qlora::op_def(s.op).composed) continue;
            ++compared;
            Trial fused(s, 2, qlora::best_kernels(), true), composed(s, 2, qlora::best_kernels(), true, true);
            expect_close(fused.results(), composed.results(), 2e-5, title(s));     // the same sums in another order
        }
    }
    EXPECT_GT(compared, 0);
}

TEST(Sweep, SameBytesForAnyNumberOfThreads) {
    for (const Sample& s : samples::all(true)) {
        const std::vector<std::vector<float>> one = Trial(s, 1, qlora::best_kernels(), true).results();
        for (int threads : {2, 3}) {
            const std::vector<std::vector<float>> many = Trial(s, threads, qlora::best_kernels(), true).results();
            ASSERT_EQ(one.size(), many.size());
            for (size_t k = 0; k < one.size(); ++k)
                EXPECT_EQ(std::memcmp(one[k].data(), many[k].data(), one[k].size() * 4), 0)
                    << title(s) << ", result " << k << ", threads " << threads;
        }
    }
}

TEST(Sweep, InstructionSetsAgree) {
    for (const Sample& s : samples::all(true)) {
        const std::vector<std::vector<float>> scalar = Trial(s, 2, *qlora::all_kernels().back(), true).results();
        for (const Kernels& set : every_set_support::every_set()) {
            expect_close(Trial(s, 2, set, true).results(), scalar, 2e-5, title(s) + ", " + std::string(set.name));
        }
    }
}

}  // namespace sweep_test
