// memory_plan_test.cpp - planning without weights, and what a plan may choose: recomputing some layers, and states of
// the optimizer in a file. None of it changes a byte of the result.
#include "src/model/draft.h"
#include "src/ops/ops.h"
#include "src/run/trainer.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace memory_plan_test {

using run_support::dataset;
using run_support::options;
using run_support::random_rows;
using run_support::TemporaryFolder;
using run_support::values_of;

const qlora::LoadOptions four_bits{.quantize = qlora::DType::nf4};

qlora::MemoryPlan plan_of(const qlora::Model& model, const qlora::LoraOptions& lora) {
    return qlora::Trainer(qlora::Lora::create(model, lora), dataset(random_rows(8)), options()).plan();
}

TEST(MemoryPlan, AnOutlineHasThePlanOfTheModel) {
    const std::string path = golden_path("training/model");
    for (const bool dora : {false, true}) {
        const qlora::LoraOptions lora{.rank = 4, .dora = dora};
        const qlora::MemoryPlan real = plan_of(qlora::Model::load(path, four_bits), lora),
                                outlined = plan_of(qlora::Model::outline(path, four_bits), lora);
        ASSERT_EQ(real.items.size(), outlined.items.size());
        for (size_t i = 0; i < real.items.size(); ++i) {
            EXPECT_EQ(real.items[i].name, outlined.items[i].name);
            // what the process held before is measured: two measurements differ
            if (real.items[i].name == "text and vocabulary") continue;
            EXPECT_EQ(real.items[i].bytes, outlined.items[i].bytes) << real.items[i].name;
        }
    }
}

TEST(MemoryPlan, AnOutlineComputesNothing) {
    const qlora::Model model = qlora::Model::outline(golden_path("training/model"), four_bits);
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4});
    qlora::Trainer trainer(lora, dataset(random_rows(8)), options());
    const TemporaryFolder folder("outline");
    EXPECT_THROW((void)trainer.step(), qlora::Error);
    EXPECT_THROW((void)model.logits(qlora::Tokens{1, 2}), qlora::Error);
    EXPECT_THROW(lora.save(folder / "adapter"), qlora::Error);
    EXPECT_THROW(model.save(folder / "model.gguf"), qlora::Error);
    EXPECT_THROW((void)model.convert(qlora::DType::f32), qlora::Error);
    EXPECT_THROW((void)lora.merge(), qlora::Error);
    const qlora::LoadOptions there{.backend = model.backend()};
    EXPECT_THROW((void)qlora::Model::load(golden_path("training/model"), there), qlora::Error);
    EXPECT_NO_THROW((void)qlora::Model::outline(golden_path("training/model"), there));
}

std::vector<float> trained(const qlora::TrainOptions& o, int64_t* paged = nullptr) {
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .dropout = 0.1f});
    qlora::Trainer trainer(lora, dataset(random_rows(8)), o);
    while (trainer.step())
        if (paged) *paged += trainer.last().paged_bytes;
    return values_of(lora);
}

TEST(MemoryPlan, LayersThatAreKeptChangeNoByte) {
    qlora::TrainOptions o = options();
    const std::vector<float> want = trained(o);
    o.kept_layers = 1;
    EXPECT_EQ(trained(o), want);
    o.kept_layers = 100;
    EXPECT_EQ(trained(o), want);
    o.checkpoint_activations = false;
    EXPECT_EQ(trained(o), want);
    const auto activations = [](int64_t kept) {
        qlora::TrainOptions some = options();
        some.kept_layers = kept;
        const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
        int64_t arena = 0;
        for (const auto& item : qlora::Trainer(lora, dataset(random_rows(8)), some).plan().items)
            for (const char* part : {"checkpointed inputs", "working set of a layer", "chunk of the loss"})
                if (item.name == part) arena += item.bytes;
        return arena;
    };
    EXPECT_LE(activations(0), activations(1));         // of two layers the last one is where the plan is fullest anyway
    EXPECT_LT(activations(1), activations(100));
}

// Of five layers, so that several are on their way.
qlora::Model five_layers() {
    static const std::string path = [] {
        std::string file = testing::TempDir() + "qlora_memory_plan.gguf";
        qlora::save_gguf_model(*tiny::make({.layers = 5, .vocabulary = 64}), file);
        return file;
    }();
    return qlora::Model::load(path, {.backend = qlora::Backend::cpu(2)});
}

struct Trained { std::vector<float> values; qlora::MemoryPlan plan; };
Trained trained_five(const qlora::TrainOptions& o) {
    const qlora::Lora lora = qlora::Lora::create(five_layers(), {.rank = 4, .dropout = 0.1f});
    qlora::Trainer trainer(lora, dataset(random_rows(8)), o);
    Trained out;
    while (trainer.step()) {}
    out.values = values_of(lora);
    out.plan = trainer.plan();
    return out;
}
int64_t bytes_of(const qlora::MemoryPlan& plan, const std::vector<const char*>& names) {
    int64_t sum = 0;
    for (const auto& item : plan.items)
        for (const char* name : names) sum += item.name == name ? item.bytes : 0;
    return sum;
}

TEST(MemoryPlan, InputsThatLieApartChangeNoByte) {
    const Trained want = trained_five(options());
    const TemporaryFolder folder("inputs");
    for (const int64_t kept : {0, 2, 5}) {
        qlora::TrainOptions o = options();
        o.kept_layers = kept;
        const Trained in_memory = trained_five(o);
        o.inputs_apart = true;
        o.optimizer.page_folder = folder.path;
        const Trained apart = trained_five(o);
        EXPECT_EQ(apart.values, want.values) << kept;
        EXPECT_TRUE(qlora::names_in(folder.path).empty());             // the file has no name
        const std::vector<const char*> inputs{"checkpointed inputs"};
        if (kept == 0) { EXPECT_LT(2 * bytes_of(apart.plan, inputs), bytes_of(in_memory.plan, inputs)); }
        if (kept == 5) { EXPECT_EQ(bytes_of(apart.plan, inputs), bytes_of(in_memory.plan, inputs)); }
    }
    qlora::TrainOptions o = options();
    o.inputs_apart = true;
    o.optimizer.page_folder = "/there/is/no/such/folder";
    EXPECT_THROW((void)trained_five(o), qlora::Error);
}

TEST(MemoryPlan, LightRecomputationChangesNoByte) {
    const std::vector<const char*> arena{"checkpointed inputs", "working set of a layer", "chunk of the loss"};
    qlora::TrainOptions o = options();
    const Trained all = trained_five(o);
    o.kept_layers = 5;
    const Trained none = trained_five(o);
    o.light_recomputation = true;
    const Trained light = trained_five(o);
    EXPECT_EQ(light.values, all.values);
    EXPECT_LT(bytes_of(light.plan, arena), bytes_of(none.plan, arena));
    EXPECT_GT(bytes_of(light.plan, arena), bytes_of(all.plan, arena));
    o.kept_layers = 3;
    EXPECT_EQ(trained_five(o).values, all.values);
}

// Products of few rows are summed in another order.
TEST(MemoryPlan, FewerRowsOfLogitsTakeLessAndOnlyRoundOtherwise) {
    const Trained want = trained_five(options());
    for (const int64_t rows : {1, 7, 16, 100000}) {
        qlora::TrainOptions o = options();
        o.loss_rows = rows;
        const Trained got = trained_five(o);
        EXPECT_LT(run_support::largest_difference(got.values, want.values), rows == 100000 ? 1e-30 : 1e-4) << rows;
    }
    const auto loss = [](int64_t rows, int64_t words) {
        qlora::GraphImpl g(qlora::make_cpu_backend(1, qlora::Compute::f32));
        const auto w = std::make_shared<const qlora::Weight>(
            qlora::dense_weight("head", {words, 8}, std::vector<float>(size_t(words * 8))));
        const qlora::Tensor x = g.input({512, 8}), targets = g.input({512}, qlora::DType::i32);
        g.output(qlora::linear_cross_entropy(x, g.weight(w), targets, false, 0, rows));
        return qlora::make_plan(g).arena;
    };
    EXPECT_GT(loss(0, 1000) - loss(16, 1000), 490 * 1000 * 4);
}

TEST(MemoryPlan, StatesInAFileChangeNoByteAndGoOnAnywhere) {
    for (const int bits : {32, 8}) {
        qlora::TrainOptions resident = options();
        resident.optimizer.bits = bits;
        resident.optimizer.paged = false;
        const TemporaryFolder folder("pages");
        qlora::TrainOptions paged = resident;
        paged.optimizer.paged = true;
        paged.optimizer.page_budget = 1;
        paged.optimizer.page_folder = folder.path;
        int64_t moved = 0, none = 0;
        const std::vector<float> want = trained(resident, &none);
        EXPECT_EQ(trained(paged, &moved), want) << bits;
        EXPECT_EQ(none, 0);
        EXPECT_GT(moved, 0);
        EXPECT_TRUE(qlora::names_in(folder.path).empty());             // the file has no name

        // half of the way paged, the other half not
        const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .dropout = 0.1f});
        const qlora::Dataset data = dataset(random_rows(8));
        {
            qlora::Trainer first(lora, data, paged);
            (void)first.step();
            first.save(folder / "checkpoint");
        }
        for (const qlora::TrainOptions& o : {resident, paged}) {
            qlora::Trainer second(lora, data, o);
            (void)second.resume(folder / "checkpoint");
            while (second.step()) {}
            EXPECT_EQ(values_of(lora), want) << bits;
        }
    }
}

TEST(MemoryPlan, AFolderThatIsNotThereIsSaid) {
    qlora::TrainOptions o = options();
    o.optimizer.page_budget = 1;
    o.optimizer.page_folder = "/there/is/no/such/folder";
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    try {
        const qlora::Trainer trainer(lora, dataset(random_rows(8)), o);
        FAIL() << "no error";
    } catch (const qlora::Error& error) {
        EXPECT_EQ(error.code, qlora::Errc::io);
        EXPECT_NE(std::string(error.what()).find("page_folder"), std::string::npos) << error.what();
    }
}

}  // namespace memory_plan_test
