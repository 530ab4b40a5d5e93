// panel_budget_test.cpp - decoded panels that a trainer keeps (TrainOptions::panel_budget): no byte of a run depends on
// how many they are, they are used, and what they take is in the plan and within the limit.
#include "src/model/draft.h"
#include "src/run/trainer.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"
#include "tests/support/over_cpu.h"

#include <gtest/gtest.h>

namespace panel_budget_test {

using run_support::dataset;
using run_support::options;
using run_support::random_rows;
using run_support::TemporaryFolder;
using run_support::values_of;

qlora::Model five_in_4_bits(const qlora::Backend& backend, qlora::DType type = qlora::DType::nf4) {
    static const std::string path = [] {
        std::string file = testing::TempDir() + "qlora_panel_budget.gguf";
        qlora::save_gguf_model(*tiny::make({.layers = 5, .vocabulary = 64}), file);
        return file;
    }();
    return qlora::Model::load(path, {.backend = backend, .quantize = type});
}
int64_t kept_by(const qlora::Trainer& trainer) {
    for (const auto& item : trainer.plan().items)
        if (item.name == "decoded panels") return item.bytes;
    return 0;
}
struct WithPanels { std::vector<float> values; double loss = 0; int64_t kept = 0; };
WithPanels trained_with(int64_t budget, int threads, qlora::Compute compute, bool checkpoint = true) {
    const qlora::Model model = five_in_4_bits(qlora::Backend::cpu(threads, compute));
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4, .dropout = 0.1f});
    qlora::TrainOptions o = options();
    o.panel_budget = budget;
    o.checkpoint_activations = checkpoint;
    const qlora::Dataset data = dataset(random_rows(8));
    qlora::Trainer trainer(lora, data, o);
    WithPanels out;
    out.kept = kept_by(trainer);
    while (trainer.step()) {}
    out.values = values_of(lora);
    out.loss = trainer.evaluate(data);
    return out;
}

TEST(PanelBudget, PanelsThatAreKeptChangeNoByte) {
    for (const qlora::Compute compute : {qlora::Compute::f32, qlora::Compute::mixed, qlora::Compute::bf16}) {
        const WithPanels want = trained_with(0, 1, compute);
        EXPECT_EQ(want.kept, 0);
        EXPECT_EQ(trained_with(1000, 1, compute).kept, 0);             // not enough for one
        const int64_t all = trained_with(1 << 30, 2, compute).kept;
        // every linear layer both ways, but on the way back the first q, k and v, before which nothing is trained
        EXPECT_GT(all, 5 * 7 * 32 * 16 * 2);
        for (const int64_t budget : {all / 5, all / 2, all}) {
            for (const int threads : {1, 2, 3}) {
                const WithPanels got = trained_with(budget, threads, compute);
                EXPECT_EQ(got.values, want.values) << name_of(compute) << ' ' << budget << ' ' << threads;
                EXPECT_EQ(got.loss, want.loss);
                EXPECT_LE(got.kept, budget);
                EXPECT_GT(got.kept, budget * 3 / 4);
            }
        }
        EXPECT_EQ(trained_with(all, 2, compute, false).values, want.values);
    }
}

// A kept panel that somebody spoils shows in the loss: it is what is multiplied with.
TEST(PanelBudget, PanelsAreUsedInTrainingAndMeasuring) {
    const qlora::Model model = five_in_4_bits(qlora::Backend::cpu(2, qlora::Compute::f32));
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4});
    qlora::TrainOptions o = options();
    o.panel_budget = 1 << 30;
    const auto data = qlora::impl_of(dataset(random_rows(8)));
    qlora::TrainerImpl trainer(qlora::impl_of(lora), data, o);
    const double before = trainer.evaluate(*data);
    const qlora::WeightRef w = qlora::impl_of(model)->at(qlora::Slot::down_proj, 3)->ref();
    qlora::KeptPanels* const panels = trainer.panels->find(w, qlora::Pass::forward);
    ASSERT_TRUE(panels && panels->packed);
    EXPECT_FALSE(trainer.panels->find(w, qlora::Pass::backward)->packed);   // no step was taken
    const auto same = [&] {
        return qlora::Trainer(lora, qlora::handle_of<qlora::Dataset>(data), options())
            .evaluate(qlora::handle_of<qlora::Dataset>(data));
    };
    EXPECT_EQ(same(), before);
    float* const floats = reinterpret_cast<float*>(panels->memory);
    for (int64_t i = 0; i < w.rows * w.cols; ++i) floats[i] *= -3;
    EXPECT_NE(trainer.evaluate(*data), before);
    EXPECT_EQ(same(), before);                         // a trainer without them, of the same model
    ASSERT_TRUE(trainer.step());
    EXPECT_TRUE(trainer.panels->find(w, qlora::Pass::backward)->packed);
}

// Models on one backend, one after the other, whose weights may lie where those of another one lay, and two at a time.
TEST(PanelBudget, PanelsAreOfOneTrainerAndItsModel) {
    const qlora::Backend backend = qlora::Backend::cpu(2, qlora::Compute::f32);
    const qlora::Dataset data = dataset(random_rows(8));
    constexpr qlora::DType types[] = {qlora::DType::nf4, qlora::DType::fp4};
    const auto trainers = [&](int64_t budget, bool together) {
        qlora::TrainOptions o = options();
        o.panel_budget = budget;
        std::vector<qlora::Lora> adapters;
        std::vector<qlora::Trainer> held;
        for (const qlora::DType type : types) {
            adapters.push_back(qlora::Lora::create(five_in_4_bits(backend, type), {.rank = 4}));
            held.emplace_back(adapters.back(), data, o);
            while (!together && held.back().step()) {}
            if (!together) held.clear();
        }
        for (bool more = together; more;) {
            more = false;
            for (qlora::Trainer& trainer : held) more = trainer.step() || more;
        }
        return std::vector<std::vector<float>>{values_of(adapters[0]), values_of(adapters[1])};
    };
    const auto want = trainers(0, false);
    EXPECT_NE(want[0], want[1]);
    EXPECT_EQ(trainers(1 << 30, false), want);
    EXPECT_EQ(trainers(1 << 30, true), want);
}

TEST(PanelBudget, PanelsBeyondTheLimitAreRefusedBeforeTheRun) {
    qlora::Backend backend = qlora::Backend::cpu(1, qlora::Compute::f32);
    const qlora::Model model = five_in_4_bits(backend);
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4});
    qlora::TrainOptions o = options();
    o.panel_budget = int64_t(1) << 40;                 // all there are
    const qlora::Dataset data = dataset(random_rows(8));
    const int64_t all = kept_by(qlora::Trainer(lora, data, o));
    const size_t before = backend.memory_used();
    const int64_t without = [&] {
        const qlora::Trainer trainer(lora, data, options());
        EXPECT_EQ(kept_by(trainer), 0);
        return int64_t(backend.memory_used());
    }();
    backend.limit_memory(without + all - 1);
    try {
        const qlora::Trainer trainer(lora, data, o);
        FAIL() << "no error";
    } catch (const qlora::Error& error) {
        EXPECT_EQ(error.code, qlora::Errc::memory) << error.what();
        EXPECT_TRUE(run_support::contains(error.what(), std::to_string(all))) << error.what();
    }
    EXPECT_EQ(backend.memory_used(), before);
    backend.limit_memory(without + all);
    const qlora::Trainer fits(lora, data, o);
    EXPECT_EQ(int64_t(backend.memory_used()), without + all);
    o.panel_budget = -1;
    EXPECT_TRUE(run_support::contains(run_support::error_of([&] { const qlora::Trainer t(lora, data, o); }),
                                      "panel_budget is -1, expected 0 (none) or more"));
}

struct Device : over_cpu::OverCpu {
    bool has_host_memory() const override { return false; }
};

TEST(PanelBudget, IsRefusedWhereThereAreNoPanels) {
    const qlora::Model model = five_in_4_bits(qlora::handle_of<qlora::Backend>(std::make_shared<Device>()));
    qlora::TrainOptions o = options();
    o.panel_budget = 1000;
    try {
        const qlora::Trainer trainer(qlora::Lora::create(model, {.rank = 4}), dataset(random_rows(8)), o);
        FAIL() << "no error";
    } catch (const qlora::Error& error) {
        EXPECT_EQ(error.code, qlora::Errc::unsupported);
        EXPECT_TRUE(run_support::contains(error.what(), "panel_budget is 1000, expected 0: over cpu")) << error.what();
    }
}

TEST(PanelBudget, IsPlannedForOutlinesToo) {
    const std::string path = golden_path("training/model");
    const qlora::LoadOptions four_bits{.backend = qlora::Backend::cpu(1, qlora::Compute::bf16),
                                       .quantize = qlora::DType::nf4};
    qlora::TrainOptions o = options();
    const auto kept = [&](const qlora::Model& model) {
        return kept_by(qlora::Trainer(qlora::Lora::create(model, {.rank = 4}), dataset(random_rows(8)), o));
    };
    for (const int64_t budget : {20'000, 60'000, 1'000'000}) {
        o.panel_budget = budget;
        const int64_t real = kept(qlora::Model::load(path, four_bits));
        EXPECT_EQ(kept(qlora::Model::outline(path, four_bits)), real);
        EXPECT_GT(real, std::min<int64_t>(budget, 70'000) / 2);
    }
}

// A run that was begun with other panels, or none, goes on to the same bytes, and nothing is said of a difference.
TEST(PanelBudget, IsNoPartOfARun) {
    const std::vector<float> want = trained_with(0, 1, qlora::Compute::f32).values;
    const qlora::Model model = five_in_4_bits(qlora::Backend::cpu(1, qlora::Compute::f32));
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4, .dropout = 0.1f});
    const qlora::Dataset data = dataset(random_rows(8));
    const TemporaryFolder folder("panels");
    qlora::TrainOptions o = options();
    o.panel_budget = 100'000;
    {
        qlora::Trainer first(lora, data, o);
        ASSERT_TRUE(first.step());
        first.save(folder / "checkpoint");
    }
    for (const int64_t budget : {0, 50'000}) {
        o.panel_budget = budget;
        qlora::Trainer second(lora, data, o);
        EXPECT_TRUE(second.resume(folder / "checkpoint").empty());
        while (second.step()) {}
        EXPECT_EQ(values_of(lora), want);
    }
}

}  // namespace panel_budget_test
