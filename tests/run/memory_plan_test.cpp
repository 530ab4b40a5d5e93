// memory_plan_test.cpp - planning without weights, and what a plan may choose: recomputing some layers, and states of
// the optimizer in a file. None of it changes a byte of the result.
#include "src/run/trainer.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

namespace memory_plan_test {

using run_support::dataset;
using run_support::random_rows;
using run_support::TemporaryFolder;
using run_support::values_of;

const qlora::LoadOptions four_bits{.quantize = qlora::DType::nf4};

qlora::TrainOptions options() {
    qlora::TrainOptions o;
    o.epochs = 2;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-2f;
    return o;
}

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
