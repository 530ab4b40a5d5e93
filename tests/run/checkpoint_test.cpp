// checkpoint_test.cpp - a run that is saved, ended and resumed makes the bytes of the run that was never interrupted;
// anything damaged or of another run is refused before the adapter is touched.
#include "src/run/checkpoint.h"
#include "tests/run/run_support.h"

#include <fstream>

namespace checkpoint_test {

using run_support::contains;
using run_support::error_of;
using run_support::values_of;

qlora::TrainOptions options() {
    qlora::TrainOptions o;
    o.epochs = 3;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-2f;
    o.schedule = qlora::Schedule::cosine;
    o.optimizer.weight_decay = 0.01f;
    o.seed = 11;
    return o;
}

// One process: a fresh adapter (with other factors than the run began with, unless told) and a trainer for it.
struct Process {
    qlora::Lora lora;
    qlora::Trainer trainer;
    explicit Process(const qlora::TrainOptions& o = options(), uint64_t data_seed = 3, int threads = 1,
                     int64_t rank = 4, float dropout = 0.1f)
        : lora(qlora::Lora::create(run_support::tiny_model(threads),
                                   {.rank = rank, .alpha = 8, .dropout = dropout, .seed = 5})),
          trainer(lora, run_support::dataset(run_support::random_rows(10, data_seed)), o) {}
};

std::vector<float> straight(const qlora::TrainOptions& o) {
    Process p(o);
    while (p.trainer.step()) {}
    EXPECT_EQ(p.trainer.last().step, 9);
    return values_of(p.lora);
}

void expect_resumed_alike(const qlora::TrainOptions& o) {
    const std::vector<float> whole = straight(o);
    // in the first epoch, at its end, within the second, before the end, at the end
    for (const int stop : {1, 3, 5, 8, 9}) {
        run_support::TemporaryFolder folder("qlora-resume");
        double loss = 0;
        {
            Process first(o);
            for (int i = 0; i < stop; ++i) ASSERT_TRUE(first.trainer.step());
            loss = first.trainer.last().loss;
            first.trainer.save(folder / "checkpoint");
        }
        Process second(o, 3, stop % 2 ? 1 : 2);        // another number of threads must not matter
        second.trainer.resume(folder / "checkpoint");
        EXPECT_EQ(second.trainer.last().step, stop);
        EXPECT_EQ(second.trainer.last().loss, loss);
        while (second.trainer.step()) {}
        EXPECT_EQ(second.trainer.last().step, 9);
        EXPECT_EQ(values_of(second.lora), whole) << "resumed after step " << stop;
    }
}

TEST(Checkpoint, ResumedRunsMakeTheSameBytes) { expect_resumed_alike(options()); }

TEST(Checkpoint, ResumedRunsMakeTheSameBytesWithEightBitStates) {
    qlora::TrainOptions o = options();
    o.optimizer.bits = 8;
    o.optimizer.paged = false;
    expect_resumed_alike(o);
}

TEST(Checkpoint, SavingTwiceReplacesAndChangesNothing) {
    run_support::TemporaryFolder folder("qlora-twice");
    Process a;
    ASSERT_TRUE(a.trainer.step());
    a.trainer.save(folder / "c");
    ASSERT_TRUE(a.trainer.step());
    a.trainer.save(folder / "c");
    const auto now = values_of(a.lora);
    while (a.trainer.step()) {}
    EXPECT_EQ(values_of(a.lora), straight(options()));
    Process b;
    b.trainer.resume(folder / "c");
    EXPECT_EQ(b.trainer.last().step, 2);
    EXPECT_EQ(values_of(b.lora), now);
    int64_t entries = 0;
    for (const auto& e : std::filesystem::directory_iterator(folder.path)) entries += e.exists();
    EXPECT_EQ(entries, 1);                             // nothing temporary is left
}

TEST(Checkpoint, HoldsAnAdapterThatLoads) {
    run_support::TemporaryFolder folder("qlora-adapter");
    Process a;
    ASSERT_TRUE(a.trainer.step());
    ASSERT_TRUE(a.trainer.step());
    a.trainer.save(folder / "c");
    EXPECT_EQ(values_of(qlora::Lora::load(run_support::tiny_model(), folder / "c/adapter")), values_of(a.lora));
}

TEST(Checkpoint, RefusesDamage) {
    run_support::TemporaryFolder folder("qlora-damage");
    Process a;
    ASSERT_TRUE(a.trainer.step());
    a.trainer.save(folder / "good");
    std::vector<std::string> files;
    for (const auto& e : std::filesystem::directory_iterator(folder.path / "good"))
        if (e.is_regular_file()) files.push_back(e.path().filename().string());
    EXPECT_EQ(files.size(), 4u);                       // factors, two moments, manifest
    for (const std::string& file : files) {
        for (const char* damage : {"flip", "cut", "grow", "remove"}) {
            const std::filesystem::path copy = folder.path / "bad";
            std::filesystem::remove_all(copy);
            std::filesystem::copy(folder.path / "good", copy, std::filesystem::copy_options::recursive);
            std::string bytes = qlora::read_file((copy / file).string());
            const std::string kind = damage;
            if (kind == "flip") bytes[bytes.size() / 2] = char(bytes[bytes.size() / 2] ^ 1);
            if (kind == "cut") bytes.resize(bytes.size() - 3);
            if (kind == "grow") bytes += "x";
            if (kind == "remove") std::filesystem::remove(copy / file);
            else std::ofstream(copy / file, std::ios::binary) << bytes;
            Process b;
            const auto before = values_of(b.lora);
            EXPECT_THROW(b.trainer.resume(copy.string()), qlora::Error) << file << " " << kind;
            EXPECT_EQ(values_of(b.lora), before);
            EXPECT_EQ(b.trainer.last().step, 0);
        }
    }
    Process b;
    EXPECT_TRUE(contains(error_of([&] { b.trainer.resume(folder / "nothing"); }), "not a checkpoint"));
}

TEST(Checkpoint, RefusesAnotherRun) {
    run_support::TemporaryFolder folder("qlora-other");
    Process a;
    ASSERT_TRUE(a.trainer.step());
    a.trainer.save(folder / "c");
    const std::string path = folder / "c";
    qlora::TrainOptions o = options();
    o.learning_rate = 1e-3f;
    o.batch = 1;
    Process other_options(o);
    const std::string error = error_of([&] { other_options.trainer.resume(path); });
    EXPECT_TRUE(contains(error, "learning_rate") && contains(error, "batch was 2 and is 1")) << error;
    qlora::TrainOptions optimizer = options();
    optimizer.optimizer.bits = 8;
    optimizer.optimizer.beta2 = 0.99f;
    Process other_optimizer(optimizer);
    const std::string differs = error_of([&] { other_optimizer.trainer.resume(path); });
    EXPECT_TRUE(contains(differs, "optimizer was adamw and is adamw_8bit") && contains(differs, "beta2")) << differs;
    Process other_data(options(), 4);
    EXPECT_TRUE(contains(error_of([&] { other_data.trainer.resume(path); }), "data set"));
    Process other_rank(options(), 3, 1, 8);
    EXPECT_TRUE(contains(error_of([&] { other_rank.trainer.resume(path); }),
                         "model.layers.0.self_attn.q_proj was rank 4, scale 2 and is rank 8, scale 1"));
    const qlora::Lora quantized = qlora::Lora::create(run_support::tiny_model(1, qlora::DType::nf4),
                                                      {.rank = 4, .alpha = 8, .dropout = 0.1f, .seed = 5});
    qlora::Trainer on_quantized(quantized, run_support::dataset(run_support::random_rows(10)), options());
    EXPECT_TRUE(contains(error_of([&] { on_quantized.resume(path); }), "base model"));
    // another model's tokenizer makes other rows of the same file: the model is named, not the rows
    qlora::Trainer on_both(quantized, run_support::dataset(run_support::random_rows(11)), options());
    EXPECT_TRUE(contains(error_of([&] { on_both.resume(path); }), "another base model"));
    qlora::TrainOptions longer = options();            // going on for longer is no other run
    longer.epochs = 5;
    longer.max_bad_steps = 3;
    longer.max_seconds = 1000;
    longer.optimizer.paged = false;
    Process longer_run(longer);
    longer_run.trainer.resume(path);
    EXPECT_EQ(longer_run.trainer.last().step, 1);
}

TEST(Checkpoint, NeverReplacesAFolderThatIsNoCheckpoint) {
    run_support::TemporaryFolder folder("qlora-precious");
    std::ofstream(folder.path / "thesis.txt") << "years of work";
    Process a;
    EXPECT_THROW(a.trainer.save(folder.path.string()), qlora::Error);
    EXPECT_EQ(qlora::read_file(folder / "thesis.txt"), "years of work");
}

}  // namespace checkpoint_test
