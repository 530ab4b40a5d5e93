// trainer_test.cpp - training against PyTorch + PEFT, and the promises of trainer.h: how rows are spread does not
// matter, threads and checkpointing do not change a byte, bad steps are skipped.
#include "src/base/access.h"
#include "src/format/safetensors.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace trainer_test {

using run_support::random_rows;
using run_support::values_of;

qlora::TrainOptions options(int64_t batch = 1, int64_t accumulate = 4) {
    qlora::TrainOptions o;
    o.epochs = 2;
    o.batch = batch;
    o.accumulate = accumulate;
    o.context = 64;
    o.learning_rate = 1e-2f;
    o.warmup_ratio = 0;
    o.seed = 11;
    return o;
}

struct Training { std::vector<double> losses, norms; std::vector<float> values; };

Training train(const qlora::TrainOptions& o, const std::vector<run_support::Row>& rows, int threads = 1,
               qlora::LoraOptions lora_options = {.rank = 4, .alpha = 8, .seed = 5}) {
    const qlora::Model model = run_support::tiny_model(threads);
    const qlora::Lora lora = qlora::Lora::create(model, lora_options);
    qlora::Trainer trainer(lora, run_support::dataset(rows), o);
    Training run;
    while (trainer.step()) {
        run.losses.push_back(trainer.last().loss);
        run.norms.push_back(trainer.last().grad_norm);
    }
    run.values = values_of(lora);
    return run;
}

// The factors of a PEFT-like file in the flat layout of the adapter.
std::vector<float> flat(const qlora::Lora& lora, const std::string& file) {
    const auto tensors = qlora::SafeTensors::open(file);
    std::vector<float> values(size_t(lora.parameters()));
    for (const qlora::LoraTarget& t : impl_of(lora)->targets) {
        const std::string place = int(t.module) < 4 ? "self_attn" : "mlp";
        for (const auto& [side, at] : {std::pair{"A", t.a}, std::pair{"B", t.b}}) {
            const std::string name = qlora::str("base_model.model.model.layers.", t.layer, ".", place, ".",
                                                name_of(t.module), ".lora_", side, ".weight");
            const qlora::SafeTensor* tensor = tensors->find(name);
            if (!tensor) {
                ADD_FAILURE() << file << " lacks " << name;
                continue;
            }
            const std::vector<float> part = tensors->floats(*tensor);
            std::copy(part.begin(), part.end(), values.begin() + at);
        }
    }
    return values;
}

TEST(Trainer, TenStepsMatchPyTorchAndPeft) {
    const std::string where = "expected.json";
    const qlora::Json expected = qlora::Json::parse(qlora::read_file(golden_path("training/expected.json")), where);
    std::vector<run_support::Row> rows;
    for (const qlora::Json& r : expected.find("rows")->array()) {
        run_support::Row& row = rows.emplace_back();
        for (const qlora::Json& t : r.find("tokens")->array()) row.tokens.push_back(qlora::Token(t.integer()));
        for (const qlora::Json& t : r.find("trained")->array()) row.trained.push_back(uint8_t(t.integer()));
    }
    const qlora::Lora lora = qlora::Lora::load(run_support::tiny_model(), golden_path("training/adapter"));
    qlora::TrainOptions o = options(2, 2);             // every step sees all four rows
    o.epochs = 10;
    o.learning_rate = float(expected.find("learning_rate")->number());
    o.optimizer.weight_decay = float(expected.find("weight_decay")->number());
    o.optimizer.max_grad_norm = float(expected.find("max_grad_norm")->number());
    o.schedule = qlora::Schedule::linear;
    qlora::TrainerImpl trainer(impl_of(lora), impl_of(run_support::dataset(rows)), o);
    for (size_t step = 0; step < 10; ++step) {
        ASSERT_TRUE(trainer.step());
        const double loss = expected.find("losses")->array()[step].number(),
                     norm = expected.find("grad_norms")->array()[step].number();
        EXPECT_NEAR(trainer.progress.last.loss, loss, 1e-5 * loss) << "step " << step + 1;
        EXPECT_NEAR(trainer.progress.last.grad_norm, norm, 1e-4 * norm) << "step " << step + 1;
        if (step > 0) continue;
        // sums over tokens: the reference has their mean
        std::vector<float> gradients = run_support::download(trainer.gradients, lora);
        for (float& g : gradients) g /= float(trainer.progress.last.trained_tokens);
        EXPECT_LT(run_support::largest_difference(gradients, flat(lora, golden_path("training/gradients.safetensors"))),
                  1e-6);
    }
    EXPECT_FALSE(trainer.step());
    EXPECT_LT(run_support::largest_difference(values_of(lora), flat(lora, golden_path("training/final.safetensors"))),
              1e-4);
}

TEST(Trainer, SpreadOverMicroBatchesDoesNotMatter) {
    const auto rows = random_rows(8);
    const Training a = train(options(1, 4), rows), b = train(options(4, 1), rows), c = train(options(2, 2), rows);
    ASSERT_EQ(a.losses.size(), 4u);
    ASSERT_EQ(b.losses.size(), 4u);
    for (size_t i = 0; i < a.losses.size(); ++i) {
        EXPECT_NEAR(a.losses[i], b.losses[i], 1e-5);
        EXPECT_NEAR(a.losses[i], c.losses[i], 1e-5);
    }
    EXPECT_LT(run_support::largest_difference(a.values, b.values), 1e-3);
}

TEST(Trainer, PackingKeepsDocumentsApart) {
    const auto rows = random_rows(6, 4, 5, 20);
    qlora::TrainOptions packed = options(1, 64);       // everything in one step
    packed.packing = true;
    packed.epochs = 1;
    qlora::TrainOptions plain = options(1, 64);
    plain.epochs = 1;
    const Training a = train(plain, rows), b = train(packed, rows);
    ASSERT_EQ(a.losses.size(), 1u);
    ASSERT_EQ(b.losses.size(), 1u);
    EXPECT_NEAR(a.losses[0], b.losses[0], 1e-5);
    EXPECT_NEAR(a.norms[0], b.norms[0], 1e-4 * a.norms[0]);
}

TEST(Trainer, PackingFillsSequences) {
    qlora::TrainOptions o = options(1, 1);
    o.packing = true;
    o.context = 40;
    const qlora::Dataset data = run_support::dataset(random_rows(40, 9, 5, 20));
    qlora::BatchPlan plan(impl_of(data), o, 40);
    std::vector<int> seen(40);
    int64_t sequences = plan.steps_per_epoch();
    EXPECT_LT(sequences, 16);                          // 40 rows of 12.5 tokens are 500: 13 full sequences
    for (int64_t s = 0; s < sequences; ++s)
        for (const auto& batch : plan.step(s)) {
            int64_t length = 0;
            for (const qlora::Document& d : plan.documents(batch)) length += int64_t(d.tokens.size());
            EXPECT_LE(length, 40);
            for (const int64_t row : batch) ++seen[size_t(row)];
        }
    EXPECT_EQ(seen, std::vector<int>(40, 1));
}

TEST(Trainer, EveryRowOncePerEpochInAnotherOrder) {
    const qlora::Dataset data = run_support::dataset(random_rows(10));
    qlora::TrainOptions o = options(2, 2);
    qlora::BatchPlan plan(impl_of(data), o, 64);
    EXPECT_EQ(plan.steps_per_epoch(), 3);              // 5 micro-batches, the last step has one
    EXPECT_EQ(plan.steps(), 6);
    std::vector<std::vector<int64_t>> epochs(2);
    for (int64_t s = 0; s < 6; ++s)
        for (const auto& batch : plan.step(s))
            epochs[size_t(s / 3)].insert(epochs[size_t(s / 3)].end(), batch.begin(), batch.end());
    EXPECT_NE(epochs[0], epochs[1]);
    for (auto& e : epochs) {
        std::sort(e.begin(), e.end());
        EXPECT_EQ(e, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    }
}

TEST(Trainer, SameBytesForThreadsAndCheckpointing) {
    const auto rows = random_rows(8);
    qlora::TrainOptions o = options(2, 2);
    const qlora::LoraOptions dropped{.rank = 4, .alpha = 8, .dropout = 0.1f, .seed = 5};
    const Training one = train(o, rows, 1, dropped), three = train(o, rows, 3, dropped);
    EXPECT_EQ(one.values, three.values);
    EXPECT_EQ(one.losses, three.losses);
    o.checkpoint_activations = false;
    EXPECT_EQ(one.values, train(o, rows, 1, dropped).values);
    o.seed = 12;
    EXPECT_NE(one.values, train(o, rows, 1, dropped).values);
}

TEST(Trainer, EightBitStatesFollowThirtyTwoBitOnes) {
    const auto rows = random_rows(8);
    qlora::TrainOptions o = options(2, 4);
    o.epochs = 20;
    const Training full = train(o, rows);
    o.optimizer.bits = 8;
    const Training small = train(o, rows), again = train(o, rows, 3);
    EXPECT_NE(full.values, small.values);
    EXPECT_NEAR(small.losses.back(), full.losses.back(), 0.05 * full.losses.back());
    EXPECT_LT(small.losses.back(), 0.9 * small.losses.front());
    EXPECT_EQ(small.values, again.values);
    EXPECT_EQ(qlora::optimizer_bytes(o.optimizer, 256 * 100), 2 * 256 * 100 + 8 * 100);
    EXPECT_EQ(qlora::optimizer_bytes({}, 256 * 100), 8 * 256 * 100);
}

TEST(Trainer, BadStepsAreSkippedAndThenReported) {
    const qlora::Model model = run_support::tiny_model();
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4, .seed = 5});
    qlora::TrainOptions o = options(1, 2);
    o.max_bad_steps = 3;
    o.epochs = 10;
    qlora::Trainer trainer(lora, run_support::dataset(random_rows(4)), o);
    ASSERT_TRUE(trainer.step());
    std::vector<float> broken = values_of(lora);
    const std::vector<float> sound = broken;
    broken[0] = std::numeric_limits<float>::quiet_NaN();
    impl_of(lora)->base->backend->upload(*impl_of(lora)->values, 0, broken.data(), int64_t(broken.size()) * 4);
    ASSERT_TRUE(trainer.step());
    EXPECT_TRUE(trainer.last().skipped);
    EXPECT_EQ(trainer.last().skipped_steps, 1);
    EXPECT_EQ(std::memcmp(values_of(lora).data(), broken.data(), broken.size() * 4), 0);   // not touched
    ASSERT_TRUE(trainer.step());
    const std::string error = run_support::error_of([&] { trainer.step(); });
    EXPECT_TRUE(run_support::contains(error, "3 steps in a row")) << error;
    EXPECT_TRUE(run_support::contains(error, "rows")) << error;
    impl_of(lora)->base->backend->upload(*impl_of(lora)->values, 0, sound.data(), int64_t(sound.size()) * 4);
    ASSERT_TRUE(trainer.step());
    EXPECT_FALSE(trainer.last().skipped);
    EXPECT_EQ(trainer.last().skipped_steps, 3);
}

template <class Call>
bool is_cancelled(const Call& call) {
    try {
        call();
    } catch (const qlora::Error& error) {
        EXPECT_EQ(error.code, qlora::Errc::cancelled) << error.what();
        return true;
    }
    return false;
}

TEST(Trainer, AStepThatIsStoppedIsAsIfItHadNotBegun) {
    const auto rows = random_rows(8);
    const qlora::LoraOptions dropped{.rank = 4, .alpha = 8, .dropout = 0.1f, .seed = 5};
    const Training whole = train(options(1, 4), rows, 1, dropped);
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), dropped);
    qlora::Trainer trainer(lora, run_support::dataset(rows), options(1, 4));
    std::vector<double> losses;
    for (int asked = 0; trainer.last().step < trainer.last().steps; ++asked) {
        const auto before = lora.fingerprint();
        const int64_t step = trainer.last().step;
        int left = asked % 6;    // stopped before each of the four micro-batches, before the update, and not at all
        const bool made = !is_cancelled([&] {
            trainer.step([&](int64_t done, int64_t of) {
                EXPECT_EQ(of, 4);
                EXPECT_EQ(done, asked % 6 - left);
                return left-- > 0;
            });
        });
        EXPECT_EQ(made, asked % 6 == 5);
        EXPECT_EQ(trainer.last().step, step + made);
        EXPECT_EQ(lora.fingerprint() != before, made);
        if (made) losses.push_back(trainer.last().loss);
    }
    EXPECT_EQ(losses, whole.losses);
    EXPECT_EQ(values_of(lora), whole.values);
    EXPECT_FALSE(trainer.step());
}

// The run stops where its time is over, and a checkpoint goes on with the bytes of one that was not stopped.
TEST(Trainer, StopsWhenItsTimeIsOver) {
    const auto rows = random_rows(8);
    const qlora::LoraOptions dropped{.rank = 4, .alpha = 8, .dropout = 0.1f, .seed = 5};
    const Training whole = train(options(1, 4), rows, 1, dropped);
    const run_support::TemporaryFolder folder("qlora_late");
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), dropped);
    qlora::TrainOptions limited = options(1, 4);
    limited.max_seconds = 1;
    qlora::Trainer trainer(lora, run_support::dataset(rows), limited);
    ASSERT_GT(trainer.last().steps, 2);
    ASSERT_TRUE(trainer.step());
    const uint64_t before = lora.fingerprint();
    int asked = 0;
    const bool made = trainer.step([&](int64_t done, int64_t) {        // over within the step
        ++asked;
        if (done == 2) std::this_thread::sleep_for(std::chrono::milliseconds(1050));
        return true;
    });
    EXPECT_FALSE(made);
    EXPECT_EQ(asked, 3);
    EXPECT_EQ(lora.fingerprint(), before);
    EXPECT_EQ(trainer.last().step, 1);
    EXPECT_FALSE(trainer.step()) << "and stays over";
    trainer.save(folder / "checkpoint");
    const qlora::Lora again = qlora::Lora::create(run_support::tiny_model(), dropped);
    qlora::Trainer rest(again, run_support::dataset(rows), options(1, 4));
    EXPECT_TRUE(rest.resume(folder / "checkpoint").empty());
    while (rest.step()) {}
    EXPECT_EQ(values_of(again), whole.values);
    limited.max_seconds = 1e-9;
    qlora::Trainer none(lora, run_support::dataset(rows), limited);
    EXPECT_FALSE(none.step());
    EXPECT_EQ(none.last().step, 0);
}

// A row of weight 2 is that row twice; the same weight for all changes nothing.
TEST(Trainer, RowsCountByTheirWeights) {
    const std::vector<run_support::Row> rows = random_rows(3), twice{rows[0], rows[0], rows[1], rows[2]};
    const auto run = [](const qlora::Dataset& data) {
        const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .seed = 5});
        qlora::TrainOptions o = options(data.info().rows, 1);
        o.epochs = 3;
        qlora::Trainer trainer(lora, data, o);
        while (trainer.step()) {}
        return std::pair(values_of(lora), trainer.last().loss);
    };
    const auto weighted = [&](const std::vector<float>& w) { return run_support::dataset(rows).weighted(w); };
    const auto plain = run(run_support::dataset(rows)), double_row = run(run_support::dataset(twice)),
               heavy = run(weighted({2, 1, 1}));
    EXPECT_LT(run_support::largest_difference(heavy.first, double_row.first), 2e-5);
    EXPECT_NEAR(heavy.second, double_row.second, 1e-5);
    EXPECT_GT(run_support::largest_difference(heavy.first, plain.first), 1e-4);
    EXPECT_EQ(run(weighted({1, 1, 1})), plain);
    EXPECT_LT(run_support::largest_difference(run(weighted({3, 3, 3})).first, plain.first), 2e-5);
    EXPECT_NE(impl_of(weighted({2, 1, 1}))->fingerprint(), impl_of(run_support::dataset(rows))->fingerprint());
    const auto [rest, part] = weighted({2, 3, 4}).split(0.34f);
    EXPECT_EQ(impl_of(rest)->weight(0) + impl_of(rest)->weight(1) + impl_of(part)->weight(0), 9);
    const std::vector<qlora::Dataset> parts{run_support::dataset(rows), weighted({2, 3, 4})};
    EXPECT_EQ(impl_of(qlora::Dataset::join(parts))->weight(1), 1);
    EXPECT_EQ(impl_of(qlora::Dataset::join(parts))->weight(4), 3);
    for (const std::vector<float>& bad : {std::vector<float>{1, 1}, {1, 0, 1}, {1, -1, 1}, {1, HUGE_VALF, 1}})
        EXPECT_TRUE(run_support::contains(run_support::error_of([&] { (void)weighted(bad); }), "weight"));
}

// Set before the first step it is the rate of the options; a checkpoint keeps it.
TEST(Trainer, TheLearningRateMayChangeBetweenSteps) {
    const auto rows = random_rows(8);
    qlora::TrainOptions fast = options(2, 1), slow = options(2, 1);
    fast.schedule = slow.schedule = qlora::Schedule::linear;
    fast.learning_rate = 3e-3f;
    slow.learning_rate = 1e-4f;
    const run_support::TemporaryFolder folder("qlora_rate");
    const auto run = [&](const qlora::TrainOptions& o, float set, bool resume) {
        const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .seed = 5});
        auto trainer = std::make_unique<qlora::Trainer>(lora, run_support::dataset(rows), o);
        if (set >= 0) trainer->set_learning_rate(set);
        EXPECT_TRUE(trainer->step());
        if (resume) {
            trainer->save(folder / "checkpoint");
            trainer = std::make_unique<qlora::Trainer>(lora, run_support::dataset(rows), o);
            trainer->resume(folder / "checkpoint");
        }
        while (trainer->step()) {}
        return std::pair(values_of(lora), trainer->last().learning_rate);
    };
    const auto expected = run(fast, -1, false);
    EXPECT_EQ(run(slow, 3e-3f, false), expected);
    EXPECT_EQ(run(slow, 3e-3f, true), expected);
    EXPECT_NE(run(slow, -1, false), expected);
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    qlora::Trainer trainer(lora, run_support::dataset(rows), slow);
    for (const float bad : {-1.0f, HUGE_VALF, std::nanf("")}) {
        const std::string error = run_support::error_of([&] { trainer.set_learning_rate(bad); });
        EXPECT_TRUE(run_support::contains(error, "set_learning_rate")) << error;
    }
}

TEST(Trainer, AMeasurementMayBeCancelled) {
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    const qlora::Dataset data = run_support::dataset(random_rows(300, 9, 5, 20));       // a few runs of 1024 rows
    qlora::Trainer trainer(lora, data, options());
    EXPECT_TRUE(is_cancelled([&] { (void)trainer.evaluate(data, [] { return false; }); }));
    int left = 1;
    EXPECT_TRUE(is_cancelled([&] { (void)trainer.evaluate(data, [&] { return left-- > 0; }); }));
    EXPECT_EQ(trainer.evaluate(data, [] { return true; }), trainer.evaluate(data));
}

TEST(Trainer, SaysHowLongTheRunIs) {
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    qlora::TrainOptions o = options(2, 2);
    o.epochs = 1.5;
    EXPECT_EQ(qlora::Trainer(lora, run_support::dataset(random_rows(8)), o).last().steps, 3);
    EXPECT_EQ(qlora::Trainer(lora, run_support::dataset(random_rows(8)), o).last().epochs, 1.5);
}

TEST(Trainer, PlanIsWhatARunUses) {
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    qlora::TrainOptions o = options(2, 1);
    qlora::TrainerImpl trainer(impl_of(lora), impl_of(run_support::dataset(random_rows(8))), o);
    const qlora::MemoryPlan plan = trainer.plan();
    int64_t sum = 0;
    std::map<std::string, int64_t> bytes;
    for (const auto& item : plan.items) {
        EXPECT_GT(item.bytes, 0) << item.name;
        sum += bytes[item.name] = item.bytes;
    }
    EXPECT_EQ(plan.peak, sum);
    EXPECT_EQ(plan.device_peak, 0);
    EXPECT_EQ(bytes["adapter"], lora.parameters() * 4);
    EXPECT_EQ(bytes["optimizer states"], lora.parameters() * 8);
    const void* arena = trainer.decoders.arena()->data;
    while (trainer.step()) {}
    EXPECT_EQ(trainer.decoders.arena()->data, arena);  // no batch needed more
    EXPECT_EQ(trainer.decoders.arena()->bytes,
              bytes["checkpointed inputs"] + bytes["activations kept"] + bytes["working set of a layer"] +
                  bytes["chunk of the loss"]);
}

TEST(Trainer, EvaluateIsTheMeanOverTokensAndChangesNothing) {
    const auto rows = random_rows(5);
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    const qlora::Dataset data = run_support::dataset(rows);
    qlora::TrainOptions o = options(5, 1);
    qlora::Trainer trainer(lora, data, o);
    const double before = trainer.evaluate(data);
    EXPECT_EQ(before, qlora::evaluate(lora, data));
    EXPECT_NEAR(before, qlora::evaluate(lora.base(), data), 1e-6);      // B = 0: the base model
    const auto values = values_of(lora);
    EXPECT_EQ(trainer.evaluate(data), before);
    EXPECT_EQ(values_of(lora), values);
    ASSERT_TRUE(trainer.step());
    EXPECT_NEAR(trainer.last().loss, before, 1e-5);     // the loss of a step is measured before it
    EXPECT_LT(trainer.evaluate(data), before);
}

TEST(Trainer, RefusesNonsense) {
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4});
    const qlora::Dataset data = run_support::dataset(random_rows(4));
    const auto refused = [&](auto change) {
        qlora::TrainOptions o = options();
        change(o);
        EXPECT_THROW(qlora::Trainer(lora, data, o), qlora::Error);
    };
    refused([](auto& o) { o.batch = 0; });
    refused([](auto& o) { o.accumulate = -1; });
    refused([](auto& o) { o.context = 1; });
    refused([](auto& o) { o.learning_rate = NAN; });
    refused([](auto& o) { o.optimizer.beta2 = 1; });
    refused([](auto& o) { o.epochs = 0; });
    refused([](auto& o) { o.max_seconds = -1; });
    refused([](auto& o) { o.max_seconds = NAN; });
    refused([](auto& o) { o.optimizer.bits = 16; });
    // what has no effect
    refused([](auto& o) { o.light_recomputation = true; });
    refused([](auto& o) { o.checkpoint_activations = false, o.kept_layers = 1, o.light_recomputation = true; });
    refused([](auto& o) { o.checkpoint_activations = false, o.inputs_apart = true; });
    refused([](auto& o) { o.optimizer.epsilon = 0; });
    refused([](auto& o) { o.min_learning_rate = 1; });
    refused([](auto& o) { o.warmup_start = 1.5f; });
    EXPECT_THROW(qlora::Trainer(lora, run_support::dataset({{{1, 2, 900}, {1, 1, 1}}}), options()), qlora::Error);
    EXPECT_THROW(qlora::Trainer(lora, run_support::dataset({{{1, 2, 3}, {1, 0, 0}}}), options()), qlora::Error);
}

TEST(Trainer, LearnsAStoryByHeart) {
    if (!qlora::exists(data_path("model/stories260K/stories260K.gguf"))) GTEST_SKIP() << "needs ../shared/data";
    const qlora::Model model = qlora::Model::load(data_path("model/stories260K/stories260K.gguf"),
                                                  {.backend = qlora::Backend::cpu(2)});
    run_support::TemporaryFolder folder("qlora-story");
    qlora::write_file_atomic(
        folder / "story.jsonl",
        "{\"text\": \"Tom the cat built a green boat. He sailed to the moon and ate a cheese.\"}\n");
    const qlora::Dataset data = qlora::Dataset::load(folder / "story.jsonl", model);
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 8, .alpha = 16});
    qlora::TrainOptions o;
    o.epochs = 30;
    o.accumulate = 1;
    o.learning_rate = 1e-2f;
    qlora::Trainer trainer(lora, data, o);
    const double before = trainer.evaluate(data);
    while (trainer.step()) {}
    EXPECT_GT(before, 2);
    EXPECT_LT(trainer.evaluate(data), 0.25 * before);
    qlora::Session session(lora);
    qlora::Sampling greedy;
    greedy.temperature = 0;
    greedy.max_tokens = 60;
    EXPECT_TRUE(run_support::contains(session.complete("Tom the cat", greedy).text,
                                      "built a green boat. He sailed to the moon and ate a cheese."));
}

}  // namespace trainer_test
