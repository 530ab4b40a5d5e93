// plan_test.cpp - plans for a CUDA device without one (src/cuda/plan): those of the backend, to the byte, and nothing
// else works there.
#include "tests/cuda/device_under_test.h"

#include "src/cuda/plan/planned.h"
#include "src/model/lora.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace cuda_plan_test {

namespace q = qlora;
using q::cuda::Facts;

// A model of sizes alone.
q::Model sizes_of(const q::Config& c, q::DType linear, q::DType head, std::shared_ptr<q::BackendImpl> backend) {
    auto m = std::make_shared<q::ModelImpl>();
    m->config = c;
    m->path = "sizes";
    m->backend = std::move(backend);
    m->layers.resize(size_t(c.layers));
    q::for_each_tensor(c, [&](const q::Row& row, int64_t layer) {
        auto w = std::make_shared<q::Weight>();
        w->name = q::tensor_name(q::World::gguf, c, row, layer);
        w->shape = shape_of(c, row, layer);
        w->dtype = row.kind == q::Kind::linear      ? linear
                   : row.kind == q::Kind::embedding ? (row.slot == q::Slot::head || c.tied ? head : q::DType::bf16)
                                                    : q::DType::f32;
        m->at(row.slot, layer) = w;
    });
    if (c.tied) m->at(q::Slot::head) = m->at(q::Slot::embedding);
    return q::handle_of<q::Model>(std::shared_ptr<const q::ModelImpl>(m));
}

q::Config llama(int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t feed_forward,
                int64_t vocabulary) {
    q::Config c = q::family_named("llama")->start();
    c.layers = layers, c.hidden = hidden, c.heads = heads, c.kv_heads = kv_heads;
    c.head_dim = c.rotated = hidden / heads;
    c.feed_forward = feed_forward, c.vocabulary = vocabulary;
    c.context = 4096;
    c.tied = hidden < 4096;
    set_frequencies(c, 10000, {}, "llama");
    return c;
}

struct Case {
    q::LoraOptions lora{.rank = 8};
    q::TrainOptions train = {};
    int64_t tokens = 128, rows = 2;
    q::DType head = q::DType::bf16;
};

struct Planned { q::MemoryPlan memory; q::Plan plan; };
Planned plan_of(const q::Model& model, const Case& r) {
    const std::vector<run_support::Row> rows(
        size_t(r.rows), {q::Tokens(size_t(r.tokens), 1), std::vector<uint8_t>(size_t(r.tokens), 1)});
    q::TrainOptions o = r.train;
    o.context = r.tokens;
    o.batch = r.rows;
    const q::Lora lora = q::Lora::create(model, r.lora);
    q::TrainerImpl trainer(impl_of(lora), impl_of(run_support::dataset(rows)), o);
    return {trainer.plan(), trainer.decoders.at(trainer.batches.most_rows()).graph().plan};
}
void same(const q::Plan& got, const q::Plan& want) {
    EXPECT_EQ(got.arena, want.arena);
    EXPECT_EQ(got.order, want.order);
    EXPECT_EQ(got.steps.size(), want.steps.size());
    EXPECT_EQ(got.offset, want.offset);
    EXPECT_EQ(got.scratch, want.scratch);
}
void same(const Planned& got, const Planned& want) {
    same(got.plan, want.plan);
    EXPECT_GT(got.memory.device_peak, 0);
    EXPECT_EQ(got.memory.device_peak, want.memory.device_peak);
    ASSERT_EQ(got.memory.items.size(), want.memory.items.size());
    for (size_t i = 0; i < got.memory.items.size(); ++i) {
        const q::MemoryPlan::Item &a = got.memory.items[i], &b = want.memory.items[i];
        EXPECT_EQ(a.name, b.name);
        EXPECT_EQ(a.device, b.device) << a.name;
        if (a.name == "text and vocabulary") continue;                         // of this process, measured
        EXPECT_EQ(a.bytes, b.bytes) << a.name;
    }
}

// The outline of the device under test, as if it were another one, and that of a device that is not there.
struct Pair { std::shared_ptr<q::BackendImpl> device, planned; };
Pair outlines(const Facts& facts) {
    const auto compute = facts.exact ? q::Compute::f32 : q::Compute::bf16;
    const auto device = device_under_test::backend(compute)->outline();
    static_cast<Facts&>(static_cast<q::cuda::Planning&>(*device)) = facts;
    return {device, q::make_planned_cuda_backend(facts)->outline()};
}
const Facts all_facts[] = {{90, false, true}, {90, true, true},  {90, false, false}, {75, false, false},
                           {80, false, false}, {89, false, false}, {100, false, false}};

void expect_same(const q::Config& c, const Case& r, q::DType linear, std::span<const Facts> on) {
    for (const Facts& facts : on) {
        SCOPED_TRACE(q::str(c.family, " ", c.hidden, ", rank ", r.lora.rank, ", sm_", facts.capability,
                            facts.exact ? " exact" : "", facts.warpgroups ? " warpgroups" : ""));
        const Pair b = outlines(facts);
        same(plan_of(sizes_of(c, linear, r.head, b.planned), r), plan_of(sizes_of(c, linear, r.head, b.device), r));
    }
}

TEST(CudaPlan, OfEveryFamilyIsThatOfTheBackend) {
    for (const std::string& family : tiny::every_family()) {
        const q::Config c = tiny::make({.family = family, .hidden = 64, .head_dim = 16, .feed_forward = 96})->config;
        expect_same(c, {.tokens = 60}, q::DType::nf4, all_facts);
        expect_same(c, {.lora = {.rank = 4, .dropout = 0.1f, .dora = true}, .tokens = 5, .rows = 1}, q::DType::q8_0,
                    std::span(all_facts, 2));
    }
}

const std::vector<q::Config>& shapes() {               // 135m, 1b, 7b
    static const std::vector<q::Config> all{llama(30, 576, 9, 3, 1536, 49152), llama(16, 2048, 32, 8, 8192, 128256),
                                            llama(32, 4096, 32, 32, 11008, 32000)};
    return all;
}

TEST(CudaPlan, OfLargerShapesIsThatOfTheBackend) {
    for (const q::Config& c : shapes())
        for (const int64_t rank : {8, 64}) {
            Case r{.lora = {.rank = rank, .dropout = rank == 64 ? 0.05f : 0.0f}, .tokens = 1024};
            expect_same(c, r, q::DType::nf4, all_facts);
            r.train.checkpoint_activations = true;
            expect_same(c, r, q::DType::nf4, std::span(all_facts, 2));
            r.train.inputs_apart = true;
            r.head = q::DType::q8_0;
            r.train.loss_rows = 64;
            expect_same(c, r, q::DType::nf4, std::span(all_facts, 2));
            r.train.optimizer.paged = true;
            r.train.optimizer.bits = 8;
            r.train.optimizer.page_budget = 1;
            expect_same(c, r, q::DType::bf16, std::span(all_facts, 2));
        }
}

TEST(CudaPlan, OfFewRowsFusesAsTheBackendDoes) {
    const q::Config c = llama(2, 1024, 8, 2, 2048, 512);
    size_t fused = 0;
    for (const Facts& facts : all_facts)
        for (const int64_t rows : {1, 8, 9}) {
            SCOPED_TRACE(q::str("sm_", facts.capability, facts.exact ? " exact " : " ", rows));
            const Pair b = outlines(facts);
            const auto plan = [&](const std::shared_ptr<q::BackendImpl>& on) {
                q::DecoderSpec spec;
                spec.rows = rows;
                q::Decoder decoder(impl_of(sizes_of(c, q::DType::nf4, q::DType::bf16, on)), nullptr, spec);
                decoder.graph().prepare();
                return decoder.graph().plan;
            };
            const q::Plan got = plan(b.planned);
            same(got, plan(b.device));
            fused += got.order.size() - got.steps.size();
        }
    EXPECT_GT(fused, 0u);
}

// What any_device() says of others.
TEST(CudaPlan, OneDeviceStandsForAll) {
    for (const q::Config& c : shapes())
        for (const int64_t tokens : {128, 2048})
            for (const bool checkpoint : {false, true}) {
                SCOPED_TRACE(q::str(c.hidden, ", ", tokens, checkpoint ? " recomputed" : ""));
                Case r{.lora = {.rank = 64}, .tokens = tokens, .rows = 1};
                r.train.checkpoint_activations = checkpoint;
                const auto on = [&](const Facts& facts) {
                    const auto backend = q::make_planned_cuda_backend(facts)->outline();
                    return plan_of(sizes_of(c, q::DType::nf4, q::DType::bf16, backend), r);
                };
                const Planned any = on(q::any_device(q::Compute::bf16));
                for (const int capability : {86, 89, 100, 120}) same(on({capability, false, false}), any);
                const double ratio = double(on({90, false, true}).memory.device_peak) / double(any.memory.device_peak);
                EXPECT_GE(ratio, 0.98);
                EXPECT_LE(ratio, 1.0001);
            }
}

// What layers make of one x: of one layer as products read it, the sum of several in f32.
TEST(CudaPlan, SumsOfSeveralGradientsAreNotRounded) {
    for (const int layers : {1, 2, 3}) {
        q::GraphImpl g(q::make_planned_cuda_backend({80, false, false})->outline());
        const q::Tensor x = g.param({32, 64});
        q::Tensor total = q::sum(x);
        for (int i = 0; i < layers; ++i) {
            auto w = std::make_shared<q::Weight>();
            w->name = "w";
            w->shape = {64, 64};
            w->dtype = q::DType::nf4;
            total = q::sum(q::silu(q::matmul(x, g.weight(w)))) + total;
        }
        g.backward(total);
        int sums = 0;
        for (const q::Node& n : g.nodes) {
            if (n.op != q::Op::qmatmul_dx) continue;
            EXPECT_EQ(n.storage, n.src[2] < 0 ? q::DType::bf16 : q::DType::f32);
            sums += n.src[2] >= 0;
        }
        EXPECT_EQ(sums, layers - 1);
    }
}

// The model with its weights on the device, ready to run.
TEST(CudaPlan, IsThatOfTheRun) {
    const std::string path = golden_path("training/model");
    for (const auto compute : {q::Compute::f32, q::Compute::bf16}) {
        const auto device = device_under_test::backend(compute);
        const Facts facts = static_cast<q::cuda::Planning&>(*device);
        const auto planned = q::handle_of<q::Backend>(q::make_planned_cuda_backend(facts));
        q::LoadOptions options{.backend = planned, .quantize = q::DType::nf4};
        const Planned got = plan_of(q::Model::outline(path, options), {.tokens = 60});
        options.backend = q::handle_of<q::Backend>(device);
        same(got, plan_of(q::Model::load(path, options), {.tokens = 60}));
    }
}

q::Errc code_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const q::Error& error) {
        return error.code;
    }
    return q::Errc::cancelled;
}

TEST(CudaPlan, NothingButAnOutlineWorksWithoutADevice) {
    const std::string path = golden_path("training/model");
    const q::Backend planned = q::Backend::planned_cuda();
    EXPECT_EQ(planned.name(), "cuda, planned for sm_80");
    EXPECT_EQ(planned.compute(), q::Compute::bf16);
    EXPECT_EQ(q::Backend::planned_cuda(q::Compute::f32).compute(), q::Compute::f32);
    EXPECT_EQ(code_of([] { (void)q::Backend::planned_cuda(q::Compute(7)); }), q::Errc::argument);
    EXPECT_EQ(code_of([&] { (void)q::Model::load(path, {.backend = planned}); }), q::Errc::device);
    EXPECT_EQ(code_of([&] { q::Graph g(planned); (void)g.param({2, 2}); }), q::Errc::device);
    const q::Model outline = q::Model::outline(path, {.backend = planned, .quantize = q::DType::nf4});
    EXPECT_EQ(code_of([&] { (void)outline.logits(q::Tokens{1, 2}); }), q::Errc::argument);
    EXPECT_EQ(code_of([&] { (void)q::perplexity(outline, q::Tokens{1, 2, 3}); }), q::Errc::argument);
    const std::vector<run_support::Row> rows(2, {q::Tokens{1, 2, 3}, {1, 1, 1}});
    q::Trainer trainer(q::Lora::create(outline, {.rank = 4}), run_support::dataset(rows), {});
    EXPECT_EQ(code_of([&] { (void)trainer.step(); }), q::Errc::argument);
}

}  // namespace cuda_plan_test
