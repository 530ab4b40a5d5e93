// backend_test.cpp - what a backend decides: the type in which results are stored, and operations that it computes
// together.
#include "src/cpu/kernels.h"
#include "tests/ops/samples.h"
#include "tests/support/graph_support.h"
#include "tests/support/over_cpu.h"

#include "src/base/half.h"
#include "src/tensor/encode.h"

namespace backend_test {

namespace q = qlora;
namespace s = graph_support;
using q::Call;
using q::DType;
using q::GraphImpl;
using q::Node;
using q::Op;
using q::Tensor;

// ---- Storage: silu stores bf16, everything else f32.
void halved_silu(const Call& call) {
    const float* x = call.in(0);
    uint16_t* y = call.result<uint16_t>();
    for (int64_t i = 0; i < call.node.elements(); ++i) y[i] = q::bf16_from_f32(x[i] / (1 + std::exp(-x[i])));
}

struct Halving : over_cpu::OverCpu {
    using OverCpu::OverCpu;
    DType storage(const GraphImpl&, const Node& n) const override {
        return n.op == Op::silu ? DType::bf16 : DType::f32;
    }
    const q::Kernel* kernel(Op op) const override {
        static const q::Kernel halved{halved_silu};
        return op == Op::silu ? &halved : inner->kernel(op);
    }
};

TEST(Backend, AResultIsReadAsFloatsWhateverItIsStoredIn) {
    GraphImpl g(std::make_shared<Halving>());
    const std::vector<float> values = s::random_values(6 * 8, 3);
    const Tensor y = q::silu(s::input(g, {6, 8}, values)), turned = q::reshape(y, {8, 6}), part = q::view(y, 9, {3});
    for (const Tensor& t : {y, turned, part}) g.output(t);
    g.run();
    EXPECT_EQ(g.node(y.id()).bytes(), 6 * 8 * 2);
    EXPECT_EQ(g.node(turned.id()).storage, DType::bf16);
    std::vector<float> expected;
    for (const float x : values) expected.push_back(q::f32_from_bf16(q::bf16_from_f32(x / (1 + std::exp(-x)))));
    EXPECT_EQ(s::get(y), expected);
    EXPECT_EQ(s::get(turned), expected);
    EXPECT_EQ(s::get(part), std::vector<float>(expected.begin() + 9, expected.begin() + 12));
}

TEST(Backend, FloatsBehindAResultAreAlignedWhateverTheResultIsStoredIn) {
    Node n;
    n.shape = {3};
    n.saved = 2;
    EXPECT_EQ(n.byte_of(3), 12);
    EXPECT_EQ(n.bytes(), 20);
    n.storage = DType::bf16;
    EXPECT_EQ(n.byte_of(2), 4);
    EXPECT_EQ(n.byte_of(3), 8);
    EXPECT_EQ(n.byte_of(4), 12);
    EXPECT_EQ(n.bytes(), 16);
}

// ---- Fusions: add and the norm of its result in one.
int fused_runs = 0;

std::vector<int32_t> add_then_norm(const GraphImpl& g, std::span<const int32_t> run, size_t first) {
    if (g.node(run[first]).op != Op::add) return {};
    for (size_t at = first + 1; at < run.size(); ++at)
        if (g.node(run[at]).op == Op::rms_norm && g.node(run[at]).src[0] == run[first]) return {run[first], run[at]};
    return {};
}

void fused_add_norm(std::span<const Call> calls) {
    ++fused_runs;
    const Call &sum = calls[0], &norm = calls[1];
    std::vector<float> kept(size_t(sum.node.elements()));
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = sum.in(0)[i] + sum.in(1)[i];
    if (sum.out) std::copy(kept.begin(), kept.end(), sum.result());
    Call inner = norm;
    inner.src[0] = kept.data();
    inner.backend.kernel(Op::rms_norm)->run(inner);
}

struct Fusing : over_cpu::OverCpu {
    using OverCpu::OverCpu;
    std::span<const q::Fusion> fusions() const override {
        static const q::Fusion fusion{"add and norm", add_then_norm, fused_add_norm};
        return {&fusion, 1};
    }
};

struct Net {
    GraphImpl g;
    Tensor sum, norm;
    explicit Net(std::shared_ptr<q::BackendImpl> backend) : g(std::move(backend)) {
        const Tensor x = s::input(g, {3, 8}, 1), w = s::param(g, {8}, 2);
        sum = q::add(x, s::input(g, {3, 8}, 3));
        norm = q::rms_norm(sum, w);
    }
};

TEST(Backend, AFusionGivesWhatItsOperationsGive) {
    for (const bool also_sum : {false, true}) {
        Net fused(std::make_shared<Fusing>(1)), plain(s::cpu(1));
        if (also_sum) {
            fused.g.output(fused.sum);
            plain.g.output(plain.sum);
        }
        fused_runs = 0;
        EXPECT_EQ(s::value_of(fused.norm), s::value_of(plain.norm));
        EXPECT_EQ(fused_runs, 1);
        ASSERT_EQ(fused.g.plan.steps.size(), 1u);
        EXPECT_EQ(fused.g.plan.offset[size_t(fused.sum.id())] >= 0, also_sum)    // else it stays inside
            << "the sum has " << (also_sum ? "no " : "") << "memory";
        if (also_sum) { EXPECT_EQ(s::get(fused.sum), s::get(plain.sum)); }
    }
}

TEST(Backend, AFusionNeverRunsBeforeWhatItReads) {
    GraphImpl g(std::make_shared<Fusing>(1));
    const Tensor x = s::input(g, {3, 8}, 1), sum = q::add(x, x);
    const Tensor weights = q::silu(s::input(g, {8}, 4));                         // computed after the sum
    EXPECT_EQ(s::value_of(q::rms_norm(sum, weights)).size(), 24u);
    EXPECT_EQ(g.plan.steps.size(), 3u);
}

TEST(Backend, AFusionNeverJumpsOverAnUpdateOfWhatItReads) {
    GraphImpl g(std::make_shared<Fusing>(1));
    const Tensor x = s::input(g, {3, 8}, 1), state = s::state(g, {8}, s::random_values(8, 2)), sum = q::add(x, x);
    const q::BufferRef memory = g.node(state.id()).buffer;
    q::accumulate(state, s::input(g, {8}, 3));
    const Tensor norm = q::rms_norm(sum, g.state({8}, memory));                  // reads the state as updated
    g.output(norm);
    g.run();
    EXPECT_EQ(g.plan.steps.size(), 3u);
}

// ---- The CPU's own: products of one x.
struct Unfused : over_cpu::OverCpu {
    using OverCpu::OverCpu;
    std::span<const q::Fusion> fusions() const override { return {}; }
};

std::vector<std::vector<float>> products(std::shared_ptr<q::BackendImpl> backend, int64_t rows, DType type,
                                         size_t* steps) {
    GraphImpl g(std::move(backend));
    const Tensor x = s::input(g, {rows, 64}, 5);
    std::vector<Tensor> results;
    for (int64_t i = 0; i < 10; ++i) {
        const q::WeightPtr stored = samples::stored_weight({32 * (1 + i % 3), 64}, uint64_t(i));
        const DType to = i == 1 ? DType::f16 : i == 4 ? DType::q4_0 : type;      // several ways at a time
        const Tensor w = g.weight(std::make_shared<const q::Weight>(q::convert_weight(*stored, to, true, nullptr)));
        results.push_back(q::matmul(x, w));
        if (i == 2) results.push_back(q::silu(results.back()));
        g.output(results.back());
    }
    for (const Tensor& t : results) g.output(t);
    g.run();
    *steps = g.plan.steps.size();
    std::vector<std::vector<float>> values;
    for (const Tensor& t : results) values.push_back(s::get(t));
    return values;
}

TEST(Backend, ProductsOfOneXAreTheSameTogetherAndAlone) {
    for (const q::Compute compute : {q::Compute::f32, q::Compute::bf16})
        for (const DType type : {DType::nf4, DType::q8_0, DType::f32})
            for (const int64_t rows : {1, 3, 4, 5, 16, 17})
                for (const int threads : {1, 3}) {
                    size_t together = 0, alone = 0;
                    EXPECT_EQ(products(q::make_cpu_backend(threads, compute), rows, type, &together),
                              products(std::make_shared<Unfused>(2, compute), rows, type, &alone))
                        << q::name_of(type) << ", " << rows << " rows, " << threads << " threads";
                    EXPECT_EQ(alone, 11u);
                    // Eight products, two, and silu; with more than a few rows where the set has kernels for that.
                    const bool all = rows <= q::gemv_rows;
                    const bool none = rows > q::most_gemv_rows || compute == q::Compute::f32;
                    EXPECT_GE(together, none && !all ? 11u : 3u);
                    EXPECT_LE(together, all ? 3u : 11u);
                }
}

// q, k and v of a layer with an adapter and a bias each, and what is computed of them in between.
std::vector<std::vector<float>> adapted(std::shared_ptr<q::BackendImpl> backend, int64_t rows, float dropout,
                                        std::map<std::string, int>* fused) {
    GraphImpl g(std::move(backend));
    const Tensor x = s::input(g, {rows, 64}, 5);
    std::vector<Tensor> results;
    for (uint64_t i = 0; i < 3; ++i) {
        const int64_t out = 32 * int64_t(1 + i % 2), rank = int64_t(3 + i);
        const Tensor y = q::matmul(x, g.weight(samples::stored_weight({out, 64}, i)));
        const q::LoraAttr attr{.scale = 0.5f, .p = dropout, .seed = 7, .stream = i};
        const Tensor path = q::lora(y, x, s::param(g, {rank, 64}, 10 + i), s::param(g, {out, rank}, 20 + i), attr);
        results.push_back(q::silu(q::bias(path, s::param(g, {out}, 30 + i))));
        g.output(results.back());
    }
    g.run();
    for (const q::Step& step : g.plan.steps)
        if (step.fusion) ++(*fused)[q::str(step.fusion->name, ", ", step.count)];
    std::vector<std::vector<float>> values;
    for (const Tensor& t : results) values.push_back(s::get(t));
    return values;
}

TEST(Backend, PathsOfOneXAreTheSameTogetherAndAlone) {
    using Fused = std::map<std::string, int>;
    for (const q::Compute compute : {q::Compute::f32, q::Compute::bf16})
        for (const int64_t rows : {1, 4, 5})
            for (const float dropout : {0.0f, 0.5f}) {
                Fused together, alone;
                EXPECT_EQ(adapted(q::make_cpu_backend(2, compute), rows, dropout, &together),
                          adapted(std::make_shared<Unfused>(1, compute), rows, dropout, &alone))
                    << rows << " rows, dropout " << dropout;
                Fused expected;
                if (rows <= 4 && dropout > 0) expected["products of one x, 3"] = 1;
                if (rows <= 4 && dropout == 0) expected["layers of one x and their adapters, 6"] = 1;
                EXPECT_EQ(together, expected);
                EXPECT_EQ(alone, Fused{});
            }
}

// Of two adapters on one layer one is computed with it: the other reads that, or has dropout.
TEST(Backend, PathsThatDependOnEachOtherStayApart) {
    for (const float dropout : {0.0f, 0.5f}) {
        std::vector<std::vector<float>> values;
        for (const std::shared_ptr<q::BackendImpl>& backend :
             {q::make_cpu_backend(1, q::Compute::f32),
              std::shared_ptr<q::BackendImpl>(std::make_shared<Unfused>(1, q::Compute::f32))}) {
            GraphImpl g(backend);
            const Tensor x = s::input(g, {2, 64}, 5);
            const Tensor base = q::matmul(x, g.weight(samples::stored_weight({32, 64}, 6)));
            const Tensor a = s::param(g, {3, 64}, 7), b = s::param(g, {32, 3}, 8);
            const Tensor first = q::lora(base, x, a, b, {.scale = 0.5f});
            const Tensor second = q::lora(dropout > 0 ? base : first, x, a, b, {.p = dropout, .seed = 3});
            g.output(first);
            g.output(second);
            g.run();
            EXPECT_EQ(g.plan.steps.size(), backend->fusions().empty() ? 3u : 2u);
            values.push_back(s::get(first));
            values.push_back(s::get(second));
        }
        EXPECT_EQ(values[0], values[2]);
        EXPECT_EQ(values[1], values[3]);
    }
}

// A path whose A is made of the same x as the layer that it belongs to.
TEST(Backend, AFactorThatIsAProductOfXComesFirst) {
    std::vector<std::vector<float>> values;
    for (const std::shared_ptr<q::BackendImpl>& backend :
         {q::make_cpu_backend(2, q::Compute::f32),
          std::shared_ptr<q::BackendImpl>(std::make_shared<Unfused>(1, q::Compute::f32))}) {
        GraphImpl g(backend);
        const Tensor x = s::input(g, {3, 64}, 5);
        const Tensor y = q::matmul(x, g.weight(samples::stored_weight({32, 64}, 6)));
        const Tensor a = q::matmul(x, g.weight(samples::stored_weight({64, 64}, 7)));
        const Tensor path = q::lora(y, x, a, s::param(g, {32, 3}, 8), {.scale = 0.5f});
        g.output(path);
        g.run();
        values.push_back(s::get(path));
    }
    EXPECT_EQ(values[0], values[1]);
}

}  // namespace backend_test
