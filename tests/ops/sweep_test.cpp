// sweep_test.cpp - one sweep over every operation of ops.def: shape errors, finite differences, fused against composed,
// thread counts, instruction sets. What an operation is fed stands in samples.h.
#include "tests/ops/trial.h"
#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sweep_test {

using qlora::GraphImpl;
using qlora::Kernels;
using qlora::Op;
using qlora::Tensor;
using samples::Sample;
using samples::Trial;
using samples::expect_close;
using samples::title;

std::shared_ptr<qlora::BackendImpl> cpu(int threads, const Kernels& set) {
    auto backend = qlora::make_cpu_backend(threads, qlora::Compute::f32);
    backend->host().kernels = &set;
    return backend;
}

TEST(Sweep, EveryOperationIsCovered) {
    std::map<Op, std::set<Op>> executed;               // by the samples of an operation
    const std::vector<Sample> all = samples::all(false);
    for (const Sample& s : all) {
        Trial t(s, cpu(1, qlora::best_kernels()), true);
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
                Trial t(broken, cpu(1, *qlora::all_kernels().back()), false);
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
        Trial exact(s, cpu(1, qlora::best_kernels()), true), probe(s, cpu(1, qlora::best_kernels()), false);
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
            const auto backend = cpu(2, qlora::best_kernels());
            Trial fused(s, backend, true), composed(s, backend, true, true);
            expect_close(fused.results(), composed.results(), 2e-5, title(s));     // the same sums in another order
        }
    }
    EXPECT_GT(compared, 0);
}

TEST(Sweep, InThePlaceOfASourceItIsTheSameBytes) {
    std::map<Op, uint32_t> seen;
    for (const bool large : {false, true})
        for (const Sample& s : samples::all(large))
            samples::expect_same_in_place(s, cpu(2, qlora::best_kernels()), seen);
    samples::expect_all_that_may_be_replaced(seen);
}

TEST(Sweep, SameBytesForAnyNumberOfThreads) {
    for (const Sample& s : samples::all(true)) {
        const std::vector<std::vector<float>> one = Trial(s, cpu(1, qlora::best_kernels()), true).results();
        for (int threads : {2, 3}) {
            const std::vector<std::vector<float>> many = Trial(s, cpu(threads, qlora::best_kernels()), true).results();
            ASSERT_EQ(one.size(), many.size());
            for (size_t k = 0; k < one.size(); ++k)
                EXPECT_EQ(std::memcmp(one[k].data(), many[k].data(), one[k].size() * 4), 0)
                    << title(s) << ", result " << k << ", threads " << threads;
        }
    }
}

TEST(Sweep, InstructionSetsAgree) {
    for (const Sample& s : samples::all(true)) {
        const std::vector<std::vector<float>> scalar = Trial(s, cpu(2, *qlora::all_kernels().back()), true).results();
        for (const Kernels& set : every_set_support::every_set()) {
            expect_close(Trial(s, cpu(2, set), true).results(), scalar, 2e-5, title(s) + ", " + std::string(set.name));
        }
    }
}

}  // namespace sweep_test
