// trial.h - a sample of samples.h as a graph on any backend: its value and gradients, and how two of them are compared.
#pragma once
#include "tests/ops/samples.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace samples {

inline std::string title(const Sample& s) {
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

    // Bit i of `made`: source i, floats, reaches the operation as the result of another one.
    Trial(const Sample& s, std::shared_ptr<qlora::BackendImpl> backend, bool backward, bool composed = false,
          uint32_t made = 0)
        : g(std::move(backend)), sample(s) {
        for (size_t i = 0; i < s.sources.size(); ++i) leaves.push_back(leaf(i, s.sources[i].shape));
        Sources given = leaves;
        for (size_t i = 0; i < given.size(); ++i) {
            const bool floats = s.sources[i].kind == Kind::trained || s.sources[i].kind == Kind::value;
            if (floats && (made >> i & 1)) given[i] = qlora::clamp(given[i], -1e30f, 1e30f);
        }
        y = s.build(g, given);
        if (composed) y = qlora::op_def(s.op).composed(g, g.node(y.id()));
        g.output(y);
        r = g.input(g.node(y.id()).shape);
        r_values = normal_values(g.node(r.id()).elements(), 99);
        if (!backward || !g.node(y.id()).wants_grad) return;
        g.backward(qlora::sum(qlora::mul(y, r)));
        for (size_t i = 0; i < leaves.size(); ++i)
            if (s.sources[i].kind == Kind::trained) g.output(grad(i));
    }

    Tensor leaf(size_t i, const qlora::Shape& shape) {
        const Source& source = sample.sources[i];
        values.emplace_back();
        if (source.kind == Kind::index) return g.input(shape, qlora::DType::i32);
        if (source.kind == Kind::codes) return g.state(shape, {}, qlora::DType::u8);
        if (source.kind == Kind::stored) return g.weight(stored_weight(shape, i));
        values.back() = normal_values(qlora::elements_of(shape), i + 1);
        if (source.positive) for (float& v : values.back()) v = std::abs(v);
        return source.kind == Kind::trained ? g.param(shape)
               : source.kind == Kind::state ? g.state(shape)
                                            : g.input(shape);
    }
    bool has_grad(size_t i) const { return !g.grads.empty() && sample.sources[i].kind == Kind::trained; }
    Tensor grad(size_t i) { return g.handle(g.grads[size_t(leaves[i].id())]); }

    std::vector<float> run() {                         // writes every leaf first: some operations change them
        for (size_t i = 0; i < leaves.size(); ++i) {
            const Source& source = sample.sources[i];
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

inline double largest(const std::vector<float>& v) {
    double m = 0;
    for (float x : v) m = std::max(m, std::abs(double(x)));
    return m;
}

inline void expect_close(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b,
                         double tolerance, const std::string& what) {
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

// A result that the plan puts where a source lay is the same bytes as one in a place of its own. seen: per operation
// the sources that were replaced.
inline void expect_same_in_place(const Sample& s, const std::shared_ptr<qlora::BackendImpl>& backend,
                                 std::map<Op, uint32_t>& seen) {
    if (!qlora::op_def(s.op).over) return;
    for (const bool backward : {false, true}) {
        for (size_t i = 0; i <= s.sources.size(); ++i) {                       // one source, at the end all of them
            const uint32_t made = i < s.sources.size() ? 1u << i : ~0u;
            Trial in_place(s, backend, backward, false, made), apart(s, backend, backward, false, made);
            for (int32_t id = 0; id < int32_t(apart.g.nodes.size()); ++id)
                if (qlora::op_def(apart.g.node(id).op).computes) apart.g.output(apart.g.handle(id));
            EXPECT_EQ(in_place.results(), apart.results()) << title(s) << ", source " << i;
            const qlora::Plan& plan = in_place.g.plan;
            for (const int32_t id : plan.order) {
                const qlora::Node& n = in_place.g.node(id);
                for (size_t k = 0; k < n.src.size(); ++k) {
                    const bool there = n.src[k] >= 0 && plan.offset[size_t(id)] >= 0 &&
                                       plan.offset[size_t(id)] == plan.offset[size_t(n.src[k])];
                    if (there && qlora::op_def(n.op).aliases < 0) seen[n.op] |= 1u << k;
                }
            }
        }
    }
}
inline void expect_all_that_may_be_replaced(std::map<Op, uint32_t>& seen) {
    for (int i = 0; i < int(Op::count); ++i) {
        const uint32_t over = qlora::op_def(Op(i)).over;
        EXPECT_EQ(seen[Op(i)] & ~over, 0u) << qlora::op_def(Op(i)).name;
        EXPECT_EQ(seen[Op(i)] != 0, over != 0) << qlora::op_def(Op(i)).name << " is in no place of a source";
    }
}

}  // namespace samples
