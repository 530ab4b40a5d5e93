// dora_adapter_test.cpp - adapters with magnitudes (DoRA) against PyTorch + PEFT (tools/make_dora_golden.py): scores,
// five steps of training and the adapter that comes out, on float weights and on NF4; and what loading, merging,
// sessions and checkpoints make of them.
#include "src/base/access.h"
#include "src/format/safetensors.h"
#include "src/model/family.h"
#include "src/model/lora_impl.h"
#include "src/run/checkpoint.h"
#include "src/run/merge.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace dora_adapter_test {

using run_support::largest_difference, run_support::values_of;

qlora::Json expected() {
    return qlora::Json::parse(qlora::read_file(golden_path("dora/expected.json")), "expected.json");
}

qlora::Model model_in(bool nf4, int threads = 1) {
    qlora::LoadOptions o{.backend = qlora::Backend::cpu(threads, qlora::Compute::f32), .double_quant = false};
    if (nf4) o.quantize = qlora::DType::nf4;
    return qlora::Model::load(golden_path("training/model"), o);
}

std::vector<run_support::Row> rows_of_training() {
    const qlora::Json j = qlora::Json::parse(qlora::read_file(golden_path("training/expected.json")), "expected.json");
    std::vector<run_support::Row> rows;
    for (const qlora::Json& r : j.find("rows")->array()) {
        run_support::Row& row = rows.emplace_back();
        for (const qlora::Json& t : r.find("tokens")->array()) row.tokens.push_back(qlora::Token(t.integer()));
        for (const qlora::Json& t : r.find("trained")->array()) row.trained.push_back(uint8_t(t.integer()));
    }
    return rows;
}

qlora::Tokens ids() {
    qlora::Tokens out;
    const qlora::Json j = expected();
    for (const qlora::Json& v : j.find("ids")->array()) out.push_back(qlora::Token(v.integer()));
    return out;
}

std::vector<float> scores(const qlora::Json& rows) {
    std::vector<float> out;
    for (const qlora::Json& row : rows.array())
        for (const qlora::Json& v : row.array()) out.push_back(float(v.number()));
    return out;
}

// The tensors of two files, by name.
double largest_tensor_difference(const std::string& file, const std::string& other) {
    const auto a = qlora::SafeTensors::open(file), b = qlora::SafeTensors::open(other);
    EXPECT_EQ(a->tensors().size(), b->tensors().size());
    double most = 0;
    for (const qlora::SafeTensor& t : a->tensors()) {
        const qlora::SafeTensor* s = b->find(t.name);
        if (!s || s->shape != t.shape) {
            ADD_FAILURE() << other << " lacks " << t.name;
            continue;
        }
        most = std::max(most, largest_difference(a->floats(t), b->floats(*s)));
    }
    return most;
}

qlora::TrainOptions options_of(const qlora::Json& j) {
    qlora::TrainOptions o;
    o.epochs = 5;
    o.batch = o.accumulate = 2;                        // every step sees all four rows
    o.warmup_ratio = 0;
    o.learning_rate = float(j.find("learning_rate")->number());
    o.optimizer.weight_decay = float(j.find("weight_decay")->number());
    o.optimizer.max_grad_norm = float(j.find("max_grad_norm")->number());
    o.schedule = qlora::Schedule::linear;
    return o;
}

class DoraAdapter : public testing::TestWithParam<bool> {};

TEST_P(DoraAdapter, ScoresAndStepsMatchPeft) {
    const bool nf4 = GetParam();
    const qlora::Json j = expected();
    const qlora::Json& golden = *j.find(nf4 ? "nf4" : "dense");
    for (const int threads : {1, 3}) {
        const qlora::Lora lora = qlora::Lora::load(model_in(nf4, threads), golden_path("dora/adapter"));
        EXPECT_TRUE(lora.options().dora);
        EXPECT_LT(largest_difference(lora.logits(ids()), scores(*golden.find("logits"))), 5e-5);
        qlora::TrainerImpl trainer(impl_of(lora), impl_of(run_support::dataset(rows_of_training())), options_of(j));
        for (size_t step = 0; step < 5; ++step) {
            ASSERT_TRUE(trainer.step());
            const double loss = golden.find("losses")->array()[step].number(),
                         norm = golden.find("grad_norms")->array()[step].number();
            EXPECT_NEAR(trainer.progress.last.loss, loss, 1e-5 * loss) << "step " << step + 1;
            EXPECT_NEAR(trainer.progress.last.grad_norm, norm, 1e-4 * norm) << "step " << step + 1;
        }
        run_support::TemporaryFolder folder("qlora-dora");
        lora.save(folder / "adapter");
        EXPECT_LT(largest_tensor_difference(golden_path(nf4 ? "dora/final_nf4.safetensors" : "dora/final.safetensors"),
                                            folder / "adapter/adapter_model.safetensors"),
                  2e-4);
        // What was saved is what was trained, merged as well.
        const qlora::Lora again = qlora::Lora::load(lora.base(), folder / "adapter");
        EXPECT_EQ(again.logits(ids()), lora.logits(ids()));
        EXPECT_LT(largest_difference(lora.merge().logits(ids()), lora.logits(ids())), 5e-5);
    }
}

INSTANTIATE_TEST_SUITE_P(Base, DoraAdapter, testing::Bool(), [](const testing::TestParamInfo<bool>& of) {
    return std::string(of.param ? "nf4" : "dense");
});

// A new adapter is the base model: every magnitude is the norm of its row. A session follows the training that goes on
// beside it.
TEST(DoraAdapters, StartAsTheBaseAndFollowTheirFactors) {
    for (const qlora::LoraInit init : {qlora::LoraInit::standard, qlora::LoraInit::pissa}) {
        const qlora::Model model = model_in(false);
        const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4, .alpha = 8, .dora = true, .init = init});
        EXPECT_LT(largest_difference(lora.logits(ids()), model.logits(ids())), 5e-5);
        const qlora::Lora plain = qlora::Lora::create(model, {.rank = 4, .alpha = 8, .init = init});
        const qlora::Config& c = impl_of(model)->config;
        int64_t rows = 0;
        for (int m = 0; m < qlora::module_count; ++m) rows += c.layers * qlora::shape_of(c, qlora::Module(m), 0)[0];
        EXPECT_EQ(lora.parameters() - plain.parameters(), rows);
        qlora::DecoderSpec spec;
        spec.rows = int64_t(ids().size());
        qlora::Decoder living(impl_of(lora.base()), impl_of(lora).get(), spec);
        const auto batch = qlora::lay_out(std::vector<qlora::Document>{{ids(), {}}}, spec.rows);
        qlora::Trainer trainer(lora, run_support::dataset(rows_of_training()), options_of(expected()));
        ASSERT_TRUE(trainer.step());
        living.run(batch);
        EXPECT_EQ(living.logits(), lora.logits(ids()));
        run_support::TemporaryFolder folder("qlora-dora-start");
        lora.save(folder / "adapter");
        EXPECT_EQ(qlora::Lora::load(model, folder / "adapter").logits(ids()), lora.logits(ids()));
        EXPECT_TRUE(run_support::contains(run_support::error_of([&] { lora.save(folder / "adapter.gguf"); }), "merge"));
    }
}

TEST(DoraAdapters, ThePlanCountsWhatTheyKeep) {
    const qlora::Lora lora = qlora::Lora::create(model_in(false),
                                                 {.rank = 4, .dora = true, .init = qlora::LoraInit::pissa});
    const qlora::MemoryPlan plan =
        qlora::Trainer(lora, run_support::dataset(rows_of_training()), options_of(expected())).plan();
    std::map<std::string, int64_t> bytes;
    for (const auto& item : plan.items) bytes[item.name] = item.bytes;
    EXPECT_EQ(bytes["adapter"], lora.parameters() * 4);                // magnitudes included
    EXPECT_EQ(bytes["start of the adapter"], lora.parameters() * 4);
    int64_t rows = 0, sum = 0;
    for (const qlora::LoraTarget& t : impl_of(lora)->targets) rows += t.out;
    EXPECT_GT(bytes["row norms"], 4 * rows);           // the norms, and the arena of the graph that computes them
    for (const auto& item : plan.items) sum += item.bytes;
    EXPECT_EQ(plan.peak, sum);
}

// PEFT drops x once for both products: y + (m / n - 1) W drop(x) + m / n s B A drop(x). With m = n and B = 0 that is y,
// whatever is dropped.
TEST(DoraAdapters, DropoutOnBothProducts) {
    const qlora::Lora lora = qlora::Lora::create(
        model_in(false), {.rank = 4, .alpha = 8, .dropout = 0.5f, .modules = "o_proj", .dora = true});
    const qlora::Lora without = qlora::Lora::create(lora.base(),
                                                    {.rank = 4, .alpha = 8, .modules = "o_proj", .dora = true});
    const auto loss = [&](const qlora::Lora& l, std::vector<float>* gradients = nullptr) {
        qlora::DecoderSpec spec;
        spec.rows = int64_t(ids().size());
        spec.output = qlora::DecoderSpec::Output::loss;
        spec.dropout = true;
        spec.backward = gradients != nullptr;
        const qlora::BufferRef buffer = impl_of(l.base().backend())->allocate(l.parameters() * 4);
        if (gradients) spec.gradients = buffer;
        qlora::Decoder d(impl_of(l.base()), impl_of(l).get(), spec);
        auto batch = qlora::lay_out(std::vector<qlora::Document>{{ids(), {}}}, spec.rows);
        batch.dropout_step = 3;
        d.run(batch);
        if (gradients) *gradients = run_support::download(buffer, l);
        double sum = 0;
        for (const float v : d.nll()) sum += double(v);
        return sum;
    };
    const auto set = [](const qlora::Lora& l, const std::vector<float>& v) { qlora::set_lora_values(*impl_of(l), v); };
    EXPECT_NEAR(loss(lora), loss(without), 1e-4);
    std::vector<float> values = values_of(lora);
    const qlora::LoraTarget t = impl_of(lora)->targets[0];
    for (int64_t o = 0; o < t.out; ++o) values[size_t(t.m + o)] *= 1.5f;
    set(lora, values);
    set(without, values);
    EXPECT_GT(std::fabs(loss(lora) - loss(without)), 1e-3);
    // The gradient of the magnitudes through the dropped products, against differences: here nothing is detached.
    std::vector<float> gradients;
    loss(lora, &gradients);
    for (const int64_t o : {int64_t(0), t.out / 2, t.out - 1}) {
        const size_t at = size_t(t.m + o);
        std::vector<float> moved = values;
        moved[at] = values[at] + 0.02f;
        set(lora, moved);
        const double up = loss(lora);
        moved[at] = values[at] - 0.02f;
        set(lora, moved);
        EXPECT_NEAR(gradients[at], (up - loss(lora)) / 0.04, 2e-3) << o;
    }
}

TEST(DoraAdapters, ResumeByteForByte) {
    run_support::TemporaryFolder folder("qlora-dora-resume");
    const auto make = [] {
        return qlora::Lora::create(run_support::tiny_model(2, qlora::DType::nf4),
                                   {.rank = 4, .dropout = 0.1f, .dora = true});
    };
    const qlora::Dataset data = run_support::dataset(rows_of_training());
    const qlora::TrainOptions o = options_of(expected());
    const qlora::Lora whole = make(), half = make(), rest = make();
    qlora::Trainer a(whole, data, o), b(half, data, o), c(rest, data, o);
    while (a.step()) {}
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(b.step());
    b.save(folder / "step-2");
    c.resume(folder / "step-2");
    while (c.step()) {}
    EXPECT_EQ(values_of(whole), values_of(rest));
    EXPECT_EQ(whole.logits(ids()), rest.logits(ids()));
    const qlora::Lora other = qlora::Lora::create(whole.base(), {.rank = 4, .dropout = 0.1f});
    qlora::Trainer plain(other, data, o);
    EXPECT_TRUE(run_support::contains(run_support::error_of([&] { plain.resume(folder / "step-2"); }), "dora"));
}

}  // namespace dora_adapter_test
