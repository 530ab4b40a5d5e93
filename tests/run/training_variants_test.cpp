// training_variants_test.cpp - NEFTune, LoRA+ and grouping by length: their formulas, transformers' numbers, and that
// runs with them go on exactly.
#include "src/base/json.h"
#include "src/run/checkpoint.h"
#include "src/run/neftune.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"

#include <gtest/gtest.h>

#include <cmath>

namespace training_variants_test {

using qlora::Json;
using run_support::contains;
using run_support::error_of;

Json golden() {
    const std::string path = golden_path("training/variants.json");
    return Json::parse(qlora::read_file(path), path);
}

std::vector<int64_t> integers(const Json& list) {
    std::vector<int64_t> out;
    for (const Json& v : list.array()) out.push_back(v.integer());
    return out;
}

qlora::TrainOptions options() {
    qlora::TrainOptions o;
    o.max_steps = 6;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-3f;
    o.warmup_ratio = 0;
    o.seed = 11;
    return o;
}

std::vector<float> trained(const qlora::TrainOptions& o, int threads = 1, bool dora = false) {
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(threads),
                                                 {.rank = 4, .alpha = 8, .dora = dora, .seed = 5});
    qlora::Trainer trainer(lora, run_support::dataset(run_support::random_rows(20)), o);
    while (trainer.step()) {}
    return run_support::values_of(lora);
}

TEST(TrainingVariants, GroupsByLengthAsTransformersDoes) {
    const Json all = golden();
    for (const Json& g : all.find("groups")->array()) {
        std::vector<int64_t> order = integers(*g.find("order"));
        const std::vector<int64_t> lengths = integers(*g.find("lengths"));
        qlora::group_by_length(order, lengths, g.find("batch")->integer());
        EXPECT_EQ(order, integers(*g.find("grouped"))) << lengths.size();
    }
}

TEST(TrainingVariants, GroupingKeepsTheRowsOfAnEpochAndPutsLikeOnesTogether) {
    const std::vector<run_support::Row> rows = run_support::random_rows(64);
    const auto data = impl_of(run_support::dataset(rows));
    qlora::TrainOptions o = options();
    const auto padding = [&](bool group) {
        o.group_by_length = group;
        qlora::BatchPlan plan(data, o, 64);
        std::vector<int64_t> seen;
        int64_t lost = 0;
        for (int64_t step = 0; step < plan.steps_per_epoch(); ++step)
            for (const auto& batch : plan.step(step)) {
                int64_t longest = 0, sum = 0;
                for (const int64_t row : batch) {
                    seen.push_back(row);
                    longest = std::max(longest, int64_t(rows[size_t(row)].tokens.size()));
                    sum += int64_t(rows[size_t(row)].tokens.size());
                }
                lost += longest * int64_t(batch.size()) - sum;
            }
        std::sort(seen.begin(), seen.end());
        for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(seen.at(i), int64_t(i));
        EXPECT_EQ(seen.size(), rows.size());
        return lost;
    };
    EXPECT_LT(padding(true), padding(false) / 2);
}

TEST(TrainingVariants, NoiseIsTransformersNoise) {
    const Json all = golden();
    for (const Json& g : all.find("noise")->array()) {
        const int64_t tokens = g.find("tokens")->integer(), hidden = g.find("hidden")->integer();
        const qlora::Tokens ids(size_t(tokens), 1);
        const qlora::Document d{ids, {}};
        const std::vector<float> noise = qlora::neftune_noise(std::span(&d, 1), tokens + 3, hidden,
                                                              float(g.find("alpha")->number()), 7, 3);
        ASSERT_EQ(noise.size(), size_t((tokens + 3) * hidden));
        double largest = 0, square = 0, mean = 0;
        for (size_t i = 0; i < size_t(tokens * hidden); ++i) {
            largest = std::max(largest, std::fabs(double(noise[i])));
            square += double(noise[i]) * double(noise[i]) / double(tokens * hidden);
            mean += double(noise[i]) / double(tokens * hidden);
        }
        for (size_t i = size_t(tokens * hidden); i < noise.size(); ++i) EXPECT_EQ(noise[i], 0) << "padding";
        EXPECT_NEAR(largest / g.find("largest")->number(), 1, 1e-3);
        EXPECT_NEAR(square / g.find("mean_square")->number(), 1, 0.03);
        EXPECT_LT(std::fabs(mean), 0.03 * largest);
    }
}

TEST(TrainingVariants, EveryDocumentHasNoiseByItsOwnLength) {
    const qlora::Tokens longer(64, 1), shorter(4, 1);
    const std::vector<qlora::Document> documents{{longer, {}, 1}, {shorter, {}, 1}};
    const std::vector<float> noise = qlora::neftune_noise(documents, 68, 32, 10, 7, 3);
    const auto largest = [&](size_t from, size_t to) {
        float most = 0;
        for (size_t i = from * 32; i < to * 32; ++i) most = std::max(most, std::fabs(noise[i]));
        return double(most);
    };
    EXPECT_NEAR(largest(0, 64), 10 / std::sqrt(64.0 * 32), 0.01);
    EXPECT_NEAR(largest(64, 68), 10 / std::sqrt(4.0 * 32), 0.03);
    EXPECT_NE(noise, qlora::neftune_noise(documents, 68, 32, 10, 7, 4)) << "another step, other noise";
    EXPECT_NE(noise, qlora::neftune_noise(documents, 68, 32, 10, 8, 3)) << "another seed";
}

// transformers adds the noise to what the embedding gives: where it scales its rows itself (Gemma), behind the scale,
// where the model does (Granite), before it. Rows of the embedding that hold the noise already give the same.
TEST(TrainingVariants, NoiseIsAddedToWhatTheEmbeddingGives) {
    using namespace qlora;
    for (const auto& [family, behind] : {std::pair("gemma2", true), std::pair("granite", false)}) {
        const auto model = tiny::make({.family = family});
        const Config& c = model->config;
        const Tokens ids{3, 1, 4};
        DecoderBatch batch = lay_out(std::vector<Document>{{ids, {}}}, 3);
        batch.noise = neftune_noise(std::vector<Document>{{ids, {}}}, 3, c.hidden, 5, 7, 3);
        Decoder noisy(model, nullptr, {.rows = 3, .noise = true});
        noisy.run(batch);

        std::vector<float> rows = model->at(Slot::embedding)->decoded();
        for (size_t t = 0; t < ids.size(); ++t)
            for (int64_t i = 0; i < c.hidden; ++i)
                rows[size_t(ids[t] * c.hidden + i)] +=
                    batch.noise[t * size_t(c.hidden) + size_t(i)] / (behind ? c.embedding_scale : 1);
        const auto other = std::make_shared<ModelImpl>(*model);
        const WeightPtr head = model->at(Slot::head);
        other->at(Slot::embedding) = std::make_shared<const Weight>(
            dense_weight("changed", {c.vocabulary, c.hidden}, std::move(rows)));
        other->at(Slot::head) = head;
        const std::vector<float> expected = tiny::logits(other, nullptr, ids), got = noisy.logits();
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-4f) << family << ' ' << i;
        EXPECT_NE(got, tiny::logits(model, nullptr, ids)) << family;
    }
}

// The first step: AdamW moves B by rate * sign(g), LoRA+ by ratio times that, and A (whose gradient is 0, B is 0) not.
// DoRA's magnitudes are of B's group in PEFT too.
TEST(TrainingVariants, LoraPlusMovesBByTheRatio) {
    for (const bool dora : {false, true}) {
        const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(),
                                                     {.rank = 4, .alpha = 8, .dora = dora, .seed = 5});
        const std::vector<float> start = run_support::values_of(lora);
        qlora::TrainOptions o = options();
        o.max_steps = 1;
        o.optimizer.weight_decay = 0.1f;
        const std::vector<float> plain = trained(o, 1, dora);
        o.lora_plus_ratio = 16;
        const std::vector<float> plus = trained(o, 1, dora);
        for (const qlora::LoraTarget& t : impl_of(lora)->targets) {
            const auto moved = [&](int64_t at, int64_t count, float ratio) {
                for (int64_t i = at; i < at + count; ++i) {
                    const size_t e = size_t(i);
                    ASSERT_NEAR(plus[e] - start[e], ratio * (plain[e] - start[e]), 3e-6f) << i;
                }
            };
            moved(t.a, t.rank * t.in, 1);
            moved(t.b, t.out * t.rank, 16);
            if (dora) moved(t.m, t.out, 16);
        }
    }
}

TEST(TrainingVariants, ThreadsChangeNothingAndTheyDoChangeTheRun) {
    const std::vector<float> plain = trained(options());
    for (const int variant : {0, 1, 2}) {
        qlora::TrainOptions o = options();
        if (variant == 0) o.neftune_alpha = 5;
        if (variant == 1) o.lora_plus_ratio = 4;
        if (variant == 2) o.group_by_length = true;
        const std::vector<float> once = trained(o);
        EXPECT_NE(once, plain) << variant;
        EXPECT_EQ(once, trained(o, 3)) << variant;
    }
}

TEST(TrainingVariants, RunsGoOnExactlyAndOtherOptionsAreRefused) {
    qlora::TrainOptions o = options();
    o.neftune_alpha = 5;
    o.lora_plus_ratio = 4;
    o.group_by_length = true;
    const qlora::Dataset data = run_support::dataset(run_support::random_rows(20));
    const run_support::TemporaryFolder folder("qlora-variants");
    const auto lora = [] { return qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .alpha = 8, .seed = 5}); };
    {
        qlora::Trainer first(lora(), data, o);
        for (int i = 0; i < 3; ++i) ASSERT_TRUE(first.step());
        first.save(folder / "c");
    }
    const qlora::Lora again = lora();
    qlora::Trainer second(again, data, o);
    (void)second.resume(folder / "c");
    while (second.step()) {}
    EXPECT_EQ(run_support::values_of(again), trained(o));
    for (const char* name : {"neftune_alpha", "lora_plus_ratio", "group_by_length"}) {
        qlora::TrainOptions other = o;
        if (name[0] == 'n') other.neftune_alpha = 0;
        if (name[0] == 'l') other.lora_plus_ratio = 1;
        if (name[0] == 'g') other.group_by_length = false;
        qlora::Trainer third(lora(), data, other);
        EXPECT_TRUE(contains(error_of([&] { (void)third.resume(folder / "c"); }), name)) << name;
    }
}

TEST(TrainingVariants, WhatCannotBeIsRefused) {
    const qlora::Dataset data = run_support::dataset(run_support::random_rows(4));
    const qlora::Lora lora = qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .seed = 5});
    const auto refused = [&](auto change, const char* name) {
        qlora::TrainOptions o = options();
        change(o);
        EXPECT_TRUE(contains(error_of([&] { qlora::Trainer trainer(lora, data, o); }), name)) << name;
    };
    refused([](auto& o) { o.neftune_alpha = -1; }, "neftune_alpha");
    refused([](auto& o) { o.lora_plus_ratio = 0; }, "lora_plus_ratio");
    refused([](auto& o) { o.packing = o.group_by_length = true; }, "group_by_length");
}

}  // namespace training_variants_test
