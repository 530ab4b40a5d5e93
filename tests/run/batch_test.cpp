// batch_test.cpp - sequences generated together are what each would be alone, whoever its neighbours are.
#include "src/run/batch.h"
#include "tests/run/speaker.h"

namespace batch_test {

using namespace qlora;
using run_support::contains;
using run_support::endless;
using run_support::error_of;
using run_support::random_adapter;
using run_support::shakespeare;

struct Sequence { Tokens prompt; Sampling sampling; int lora = -1; };

Model shakespeare_in_4_bits(int threads) {
    return Model::load("models/tiny.gguf",
                       {.backend = Backend::cpu(threads, Compute::bf16), .quantize = DType::nf4});
}

// Of different lengths, greedy and drawn, with and without adapters.
std::vector<Sequence> sequences(const Model& model) {
    std::vector<Sequence> out;
    const char* texts[] = {"O Romeo", "Who goes there?", "Now is the winter of our discontent made glorious summer by",
                           "To be", "My lord,", "Speak, speak, and", "What", "A horse! a horse! my kingdom for"};
    for (int i = 0; i < 16; ++i) {
        Sampling s{.temperature = i % 3 ? 0.8f : 0.0f, .repeat_penalty = i % 2 ? 1.1f : 1.0f};
        s.max_tokens = 6 + 2 * i;
        s.seed = uint64_t(i);
        s.logprobs = true;
        if (i != 2) s = endless(model, s);
        out.push_back({model.tokenizer().encode(texts[i % 8], true), s, i % 8 < 6 ? -1 : i % 8 - 6});
    }
    return out;
}

void expect_same(const Reply& a, const Reply& b, const std::string& what) {
    EXPECT_EQ(a.text, b.text) << what;
    EXPECT_EQ(a.tokens, b.tokens) << what;
    EXPECT_EQ(a.logprobs, b.logprobs) << what << ": to the last bit";
    EXPECT_EQ(a.finish, b.finish) << what;
}

TEST(Batch, BytesDoNotDependOnTheNeighbours) {
    for (const Compute compute : {Compute::f32, Compute::mixed, Compute::bf16}) {
        std::vector<Reply> alone;
        for (const int threads : {1, 3}) {
            // of 4-bit codes, for bf16: more sequences run together
            const bool four = compute == Compute::bf16;
            const Model model = four ? shakespeare_in_4_bits(threads) : shakespeare(threads, compute);
            const std::vector<Lora> loras{random_adapter(model, 1), random_adapter(model, 2)};
            const std::vector<Sequence> all = sequences(model);
            const auto lora_of = [&](const Sequence& s) {
                return s.lora < 0 ? std::optional<Lora>() : std::optional(loras[size_t(s.lora)]);
            };
            for (size_t i = 0; threads == 1 && i < all.size(); ++i) {
                const auto lora = lora_of(all[i]);
                qlora::Session session(lora ? Adapted(*lora) : Adapted(model), {.context = 96});
                alone.push_back(session.complete(all[i].prompt, all[i].sampling));
            }
            for (const int64_t slots : {1, 3, 8, 16}) {
                Batch batch(model, {.slots = slots, .context = 96});
                std::vector<std::pair<int64_t, size_t>> running;       // slot, sequence
                size_t next = 0;
                while (next < all.size() || !running.empty()) {
                    while (next < all.size() && batch.free_slots() > 0) {
                        const int64_t slot = batch.add(all[next].prompt, all[next].sampling, lora_of(all[next]));
                        running.emplace_back(slot, next++);
                    }
                    ASSERT_TRUE(batch.step());
                    std::erase_if(running, [&](const auto& r) {
                        if (batch.running(r.first)) return false;
                        expect_same(batch.remove(r.first), alone[r.second],
                                    str("sequence ", r.second, ", ", slots, " slots, ", threads, " threads"));
                        return true;
                    });
                }
                EXPECT_FALSE(batch.step());
                EXPECT_EQ(batch.free_slots(), slots);
            }
        }
    }
}

TEST(Batch, TextIsHandedOutAndMayCancel) {
    const Model model = shakespeare(1);
    const Tokens prompt = model.tokenizer().encode("O Romeo", true);
    const Sampling few = endless(model, {.temperature = 0, .max_tokens = 9});
    Batch batch(model, {.slots = 2, .context = 64});
    const int64_t a = batch.add(prompt, few), b = batch.add(prompt, few);
    std::string texts[2];
    int calls = 0;
    while (batch.step([&](int64_t slot, std::string_view text) {
        texts[slot == a ? 0 : 1] += text;
        return slot == a || ++calls < 3;
    })) {}
    const Reply whole = batch.remove(a), cut = batch.remove(b);
    EXPECT_EQ(whole.text, texts[0]);
    EXPECT_EQ(whole.finish, Finish::length);
    EXPECT_EQ(cut.finish, Finish::cancelled);
    EXPECT_EQ(whole.text.rfind(cut.text, 0), 0u);
    EXPECT_LT(cut.text.size(), whole.text.size());
}

// A mask that allows nothing ends its own sequence; the neighbour loses no token, and gets none twice.
TEST(Batch, WhatThrowsEndsOneSequenceOnly) {
    const Model model = shakespeare(1);
    const Tokens prompt = model.tokenizer().encode("O Romeo", true);
    const Sampling few = endless(model, {.temperature = 0, .max_tokens = 9});
    const std::string expected = qlora::Session(model).complete(prompt, few).text;
    for (const bool first : {false, true}) {
        Batch batch(model, {.slots = 2, .context = 64});
        Sampling stuck = few;
        stuck.mask = [&](std::span<const Token> reply, std::span<float> scores) {
            few.mask(reply, scores);
            if (reply.size() == 3) scores[scores.size() / 2] = std::nanf("");
        };
        const int64_t a = batch.add(prompt, first ? stuck : few), b = batch.add(prompt, first ? few : stuck);
        int errors = 0;
        for (bool more = true; more;) {
            try {
                more = batch.step();
            } catch (const Error&) {
                ++errors;
            }
        }
        EXPECT_EQ(errors, 1);
        EXPECT_EQ(batch.remove(first ? b : a).text, expected);
        EXPECT_EQ(batch.remove(first ? a : b).finish, Finish::cancelled);
    }
}

TEST(Batch, ADeadlineEndsOneSequenceOnly) {
    const Model model = shakespeare(1);
    const Tokens prompt = model.tokenizer().encode("O Romeo", true), longer(400, prompt.back());
    const Sampling few = endless(model, {.temperature = 0, .max_tokens = 9});
    const std::string expected = qlora::Session(model).complete(prompt, few).text;
    Sampling late = few;
    late.max_seconds = 1e-9;
    Batch batch(model, {.slots = 3, .context = 500});
    const int64_t a = batch.add(prompt, few), b = batch.add(prompt, late), c = batch.add(longer, late);
    while (batch.step()) {}
    EXPECT_EQ(batch.remove(a).text, expected);
    for (const int64_t slot : {b, c}) {
        const Reply reply = batch.remove(slot);
        EXPECT_EQ(reply.finish, Finish::deadline);
        EXPECT_TRUE(reply.text.empty() && reply.tokens.empty());
        EXPECT_LT(reply.stats.context_used, 400);
    }
}

TEST(Batch, ContextsAndMistakes) {
    const Model model = shakespeare(1);
    const Tokens prompt = model.tokenizer().encode("O Romeo", true);
    Batch batch(model, {.slots = 1, .context = int64_t(prompt.size()) + 3});
    const int64_t slot = batch.add(prompt, endless(model, {.temperature = 0, .max_tokens = 50}));
    EXPECT_TRUE(contains(error_of([&] { (void)batch.add(prompt); }), "slots are used"));
    while (batch.step()) {}
    const Reply reply = batch.remove(slot);
    EXPECT_EQ(reply.finish, Finish::context_full);
    EXPECT_EQ(reply.tokens.size(), 4u);
    for (const int64_t bad : {slot, int64_t(-1), int64_t(1) << 40})
        EXPECT_TRUE(contains(error_of([&] { batch.remove(bad); }), "no sequence")) << bad;
    EXPECT_TRUE(contains(error_of([&] { (void)batch.add({}); }), "empty"));
    EXPECT_TRUE(contains(error_of([&] { (void)batch.add(Tokens{-1}); }), "vocabulary"));
    EXPECT_TRUE(contains(error_of([&] { (void)batch.add(Tokens(99, 1)); }), "leaves none"));
    EXPECT_TRUE(contains(error_of([&] { (void)batch.add(prompt, {.temperature = -1}); }), "temperature"));
    EXPECT_EQ(batch.free_slots(), 1) << "what was refused took no slot";
    const Lora elsewhere = Lora::create(shakespeare(1), {.rank = 2});
    EXPECT_TRUE(contains(error_of([&] { (void)batch.add(prompt, {}, elsewhere); }), "another model"));
    for (const int64_t slots : {int64_t(0), int64_t(-1), int64_t(1) << 60})
        EXPECT_TRUE(contains(error_of([&] { Batch(model, {.slots = slots}); }), "slots")) << slots;
    Batch moved(std::move(batch));
    EXPECT_TRUE(contains(error_of([&] { batch.step(); }), "moved from"));
}

}  // namespace batch_test
