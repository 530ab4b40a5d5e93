// shared_adapter_test.cpp - one adapter in several hands: conversations go on while it is trained, saves and merges
// meet one step, two trainers take turns.
#include "src/base/access.h"
#include "src/model/lora_impl.h"
#include "src/run/session.h"
#include "tests/run/run_support.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace shared_adapter_test {

using run_support::values_of;

qlora::TrainOptions options(uint64_t seed = 11) {
    qlora::TrainOptions o;
    o.epochs = 1000;
    o.batch = 2;
    o.accumulate = 1;
    o.context = 64;
    o.learning_rate = 3e-2f;
    o.warmup_ratio = 0;
    o.seed = seed;
    return o;
}

qlora::Lora adapter(bool dora = false) {
    return qlora::Lora::create(run_support::tiny_model(), {.rank = 4, .alpha = 32, .dora = dora, .seed = 5});
}

qlora::Dataset rows(uint64_t seed = 3) { return run_support::dataset(run_support::random_rows(10, seed)); }

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_shared_" + name;
    std::filesystem::remove_all(path);
    return path;
}

// Every length of what was cached, with plain and with weight-decomposed adapters: the scores are those of a fresh
// session.
TEST(TrainedBetween, ScoresAreThoseOfAFreshSession) {
    for (const bool dora : {false, true}) {
        const qlora::Lora lora = adapter(dora);
        qlora::Trainer trainer(lora, rows(), options());
        qlora::SessionImpl session(impl_of(lora)->base, impl_of(lora), {.context = 100});
        qlora::Tokens all;
        qlora::Rng rng{7, 0, 0};
        std::vector<float> before;
        for (const size_t count : {1, 20, 1, 3, 30, 1}) {
            ASSERT_TRUE(trainer.step());
            qlora::Tokens more;
            for (size_t i = 0; i < count; ++i) more.push_back(qlora::Token(1 + rng.below(63)));
            all.insert(all.end(), more.begin(), more.end());
            const std::vector<float> scores = session.feed(more).all;
            qlora::SessionImpl fresh(impl_of(lora)->base, impl_of(lora), {.context = 100});
            EXPECT_EQ(scores, fresh.feed(all).all) << "dora " << dora << ", after " << all.size();
            EXPECT_NE(scores, before);
            before = scores;
        }
        EXPECT_EQ(session.cached, all);
    }
}

struct Conversation : ::testing::Test {
    const std::string file = data_path("model/stories260K/stories260K.gguf");
    void SetUp() override {
        if (!qlora::exists(file)) GTEST_SKIP() << "needs ../shared/data";
    }
    qlora::Model model() const {
        return qlora::Model::load(file, {.backend = qlora::Backend::cpu(1, qlora::Compute::f32)});
    }
    qlora::Dataset data(const qlora::Model& m) const {
        const std::string path = testing::TempDir() + "qlora_shared_rows.jsonl";
        qlora::write_file_atomic(
            path, "{\"text\": \"Tom the cat built a green boat. He sailed to the moon and ate a cheese.\"}\n");
        return qlora::Dataset::load(path, m);
    }
};

qlora::Sampling greedy() {
    qlora::Sampling s;
    s.temperature = 0;
    s.max_tokens = 12;
    return s;
}

TEST_F(Conversation, AnswersAreThoseOfAFreshSessionByEveryWayIn) {
    const qlora::Model base = model();
    const qlora::Lora lora = qlora::Lora::create(base, {.rank = 4, .alpha = 64});
    qlora::Trainer trainer(lora, data(base), options());
    const auto fresh_chat = [&](const std::vector<qlora::Message>& history, const std::string& user) {
        qlora::Session fresh(lora);
        fresh.set_history(history);
        return fresh.chat(user, greedy()).text;
    };
    qlora::Session session(lora);
    int changed = 0;
    std::string last;
    for (int round = 0; round < 6; ++round) {
        const std::vector<qlora::Message> history = session.history();
        const std::string expected = fresh_chat(history, "Tell one.");
        EXPECT_EQ(session.chat("Tell one.", greedy()).text, expected) << "chat, round " << round;
        changed += expected != last;
        last = expected;
        ASSERT_TRUE(trainer.step());
        if (round == 2) session.reset("You tell stories.");
        if (round == 3) session.set_history(history);
        if (round == 4) {
            qlora::Session fresh(lora);
            EXPECT_EQ(session.complete("Once upon a time", greedy()).text,
                      fresh.complete("Once upon a time", greedy()).text);
        }
    }
    EXPECT_GT(changed, 3);                             // the steps do change what is said
}

// The callback may train: from there on the answer is that of the factors as they are then.
TEST_F(Conversation, ATrainerMayStepInTheMiddleOfAnAnswer) {
    const qlora::Model base = model();
    const qlora::Lora lora = qlora::Lora::create(base, {.rank = 4, .alpha = 64});
    qlora::Trainer trainer(lora, data(base), options());
    qlora::SessionImpl session(impl_of(base), impl_of(lora), {.context = 64});
    int pieces = 0;
    session.complete("Once upon a time", greedy(), [&](std::string_view) { return ++pieces != 3 || trainer.step(); });
    EXPECT_GT(pieces, 3);
    qlora::SessionImpl fresh(impl_of(base), impl_of(lora), {.context = 64});
    const qlora::Tokens all = session.cached;
    fresh.feed(all);
    const qlora::Token next = 5;
    // Other chunks of rows round differently; a step moves the scores a thousand times as far.
    EXPECT_LT(run_support::largest_difference(session.feed(std::span(&next, 1)).all,
                                              fresh.feed(std::span(&next, 1)).all),
              1e-3);
}

// What is saved, merged or measured while a trainer steps is what it was after one of the steps.
TEST(WhileATrainerSteps, SavesAndMergesMeetOneStep) {
    const qlora::Lora lora = adapter();
    std::vector<std::vector<float>> steps{values_of(lora)};
    std::atomic<bool> done = false;
    std::vector<std::vector<float>> saved, merged;
    qlora::Trainer trainer(lora, rows(), options());
    std::thread saver([&] {
        const std::string folder = temporary("save"), file = temporary("save.gguf");
        for (int i = 0; i < 2 || (!done && i < 8); ++i) {      // a save waits for the disk, and training for the save
            lora.save(i % 2 ? folder : file);
            saved.push_back(values_of(qlora::Lora::load(lora.base(), i % 2 ? folder : file)));
        }
    });
    std::thread merger([&] {
        for (int i = 0; !done || i < 2; ++i)
            merged.push_back(impl_of(lora.merge())->at(qlora::Module::q_proj, 0)->decoded());
    });
    std::thread talker([&] {
        const qlora::Tokens tokens{1, 2, 3};
        qlora::SessionImpl session(impl_of(lora)->base, impl_of(lora), {.context = 120});
        for (int i = 0; !done || i < 2; ++i) {
            EXPECT_TRUE(std::isfinite(lora.logits(tokens)[0]));
            if (session.cached.size() < 110) session.feed(tokens);
        }
    });
    for (int i = 0; i < 40; ++i) {
        EXPECT_TRUE(trainer.step());
        steps.push_back(values_of(lora));
        if (i % 20 == 19) trainer.save(temporary("checkpoint"));
    }
    done = true;
    saver.join();
    merger.join();
    talker.join();
    const auto known = [](const auto& all, const auto& one) {
        return std::find(all.begin(), all.end(), one) != all.end();
    };
    for (const auto& values : saved) EXPECT_TRUE(known(steps, values));
    const qlora::Lora other = adapter();
    std::vector<std::vector<float>> possible;
    for (const auto& values : steps) {
        qlora::set_lora_values(*impl_of(other), values);
        possible.push_back(impl_of(other.merge())->at(qlora::Module::q_proj, 0)->decoded());
    }
    for (const auto& values : merged) EXPECT_TRUE(known(possible, values));
}

// Two trainers, two steps each: the factors are those of one of the six orders.
TEST(TwoTrainers, TakeTurns) {
    std::vector<std::vector<float>> orders;
    for (const char* order : {"aabb", "abab", "abba", "baab", "baba", "bbaa"}) {
        const qlora::Lora lora = adapter();
        qlora::Trainer a(lora, rows(3), options(1)), b(lora, rows(4), options(2));
        for (const char* who = order; *who; ++who) ASSERT_TRUE((*who == 'a' ? a : b).step());
        orders.push_back(values_of(lora));
    }
    for (int round = 0; round < 8; ++round) {
        const qlora::Lora lora = adapter();
        qlora::Trainer a(lora, rows(3), options(1)), b(lora, rows(4), options(2));
        std::thread other([&] { b.step(), b.step(); });
        a.step();
        a.step();
        other.join();
        EXPECT_NE(std::find(orders.begin(), orders.end(), values_of(lora)), orders.end());
    }
}

}  // namespace shared_adapter_test
