// session_test.cpp - generation: the published story byte for byte, the cache against the whole, prefixes, limits,
// cancelling.
#include "src/base/access.h"
#include "src/run/session.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"

namespace session_test {

using run_support::contains;
using run_support::error_of;

const std::string story_model = data_path("model/stories260K/stories260K.gguf");

qlora::Sampling greedy(int64_t tokens) {
    qlora::Sampling s;
    s.temperature = 0;
    s.max_tokens = tokens;
    return s;
}

qlora::Model stories(int threads = 1) {
    return qlora::Model::load(story_model, {.backend = qlora::Backend::cpu(threads, qlora::Compute::f32)});
}

// A conversation needs a template; the story model has none and gets the plain fallback.
struct StoryTest : ::testing::Test {
    void SetUp() override {
        if (!qlora::exists(story_model)) GTEST_SKIP() << "needs ../shared/data";
    }
};

using Session = StoryTest;

TEST_F(Session, TellsThePublishedStory) {
    const qlora::Json expected = qlora::Json::parse(qlora::read_file(data_path("model/stories260K/expected.json")),
                                                    "expected.json");
    const std::string story = expected.find("computed")->find("greedy_text")->string();
    qlora::Session session(stories());
    std::string streamed;
    const std::string reply = session.complete("", greedy(256), [&](std::string_view part) {
        streamed += part;
        return true;
    }).text;
    EXPECT_EQ(reply, story);
    EXPECT_EQ(streamed, story);
    EXPECT_EQ(session.stats().reply_tokens, 256);
    EXPECT_EQ(session.stats().prompt_tokens, 1);
}

TEST_F(Session, CachedScoresEqualThoseOfTheWhole) {
    const qlora::Model model = stories();
    qlora::Tokens tokens = model.tokenizer().encode(
        "Once upon a time there was a big dog who liked to run and play in the park with his friends all day long.",
        true);
    tokens.insert(tokens.end(), tokens.begin(), tokens.end());
    tokens.insert(tokens.end(), tokens.begin(), tokens.end());         // longer than a chunk
    ASSERT_GT(tokens.size(), 130u);
    ASSERT_LT(tokens.size(), 300u);
    const std::vector<float> whole = model.logits(tokens);
    const size_t vocabulary = size_t(model.info().vocabulary);
    // Keys and values rounded to 11 or 8 bits; scores here are of order 10. Each type must also differ, or it was not
    // used.
    for (const auto& [type, most, least] :
         {std::tuple{qlora::DType::f32, 2e-4, 0.0}, {qlora::DType::f16, 2e-2, 2e-4}, {qlora::DType::bf16, 0.2, 2e-3}}) {
        qlora::SessionImpl session(impl_of(model), nullptr, {.context = 300, .cache = type});
        size_t at = 0;
        double worst = 0;
        for (const size_t count : {size_t(1), size_t(3), size_t(20), size_t(1), tokens.size() - 25}) {
            const std::vector<float> logits = session.feed(std::span(tokens).subspan(at, count)).all;
            at += count;
            ASSERT_EQ(logits.size(), vocabulary);
            for (size_t i = 0; i < vocabulary; ++i)
                worst = std::max(worst, double(std::fabs(logits[i] - whole[(at - 1) * vocabulary + i])));
        }
        EXPECT_LE(worst, most) << qlora::name_of(type);
        EXPECT_GE(worst, least) << qlora::name_of(type);
        EXPECT_EQ(session.stats.cache, type);
        EXPECT_EQ(session.stats.cache_bytes,
                  2 * 300 * impl_of(model)->config.layers *
                      qlora::bytes_of(type, impl_of(model)->config.kv_heads * impl_of(model)->config.head_dim));
    }
}

// 16 bits by default: those of the model, f16 where it has none; other types are refused with what there is.
TEST_F(Session, HoldsKeysInTheModelsSixteenBits) {
    EXPECT_EQ(qlora::Session(stories()).stats().cache, qlora::DType::f16);
    EXPECT_EQ(qlora::Session(stories().convert(qlora::DType::bf16)).stats().cache, qlora::DType::bf16);
    EXPECT_TRUE(contains(error_of([] { qlora::Session(stories(), {.cache = qlora::DType::q4_k}); }),
                         "choose f32, f16, bf16 or q8_0"));
    EXPECT_TRUE(contains(error_of([] { qlora::Session(stories(), {.cache = qlora::DType::q8_0}); }),
                         "a key has 8 numbers, not whole blocks of 32"));
}

TEST_F(Session, EightBitsAreCloseAndSmall) {
    const auto model = tiny::make({.hidden = 64, .heads = 4, .kv_heads = 2, .head_dim = 32});
    qlora::SessionImpl exact(model, nullptr, {.context = 64, .cache = qlora::DType::f32}),
        eight(model, nullptr, {.context = 64, .cache = qlora::DType::q8_0});
    const qlora::Tokens tokens{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};
    const std::vector<float> want = exact.feed(tokens).all, got = eight.feed(tokens).all;
    const double worst = run_support::largest_difference(want, got);
    EXPECT_GT(worst, 0);
    EXPECT_LT(worst, 0.1) << "scores are of order 1";
    EXPECT_EQ(eight.stats.cache_bytes * 128, exact.stats.cache_bytes * 34);
}

// A key that f16 cannot hold is said, with the remedy; it must not become an infinity in the scores.
TEST_F(Session, KeysBeyondTheRangeAreRefused) {
    const auto large = tiny::make({});
    qlora::WeightPtr& v = large->at(qlora::Module::v_proj, 0);
    std::vector<float> values = v->decoded();
    for (float& value : values) value *= 1e8f;
    v = std::make_shared<const qlora::Weight>(qlora::dense_weight("v", v->shape, std::move(values)));
    const std::vector<qlora::Token> tokens{1, 2, 3};
    qlora::SessionImpl half(large, nullptr, {.context = 16}),
        exact(large, nullptr, {.context = 16, .cache = qlora::DType::f32});
    EXPECT_TRUE(contains(error_of([&] { half.feed(tokens); }), "f16 cannot hold; choose bf16 or f32"));
    for (const float score : exact.feed(tokens).all) EXPECT_TRUE(std::isfinite(score));
}

TEST_F(Session, ReusesTheCommonPrefixWithoutChangingTheReply) {
    const qlora::Model model = stories();
    qlora::SessionImpl warm(impl_of(model), nullptr, {.context = 0}), cold(impl_of(model), nullptr, {.context = 0});
    const std::string first = "Once upon a time, there was a little girl named Lily. She had a red ball",
                      second = "Once upon a time, there was a little girl named Lily. She had a blue hat";
    warm.complete(first, greedy(20), {});
    const qlora::Tokens before = warm.cached;
    const std::string a = warm.complete(second, greedy(20), {}).text, b = cold.complete(second, greedy(20), {}).text;
    EXPECT_EQ(a, b);
    EXPECT_EQ(warm.cached, cold.cached);
    EXPECT_GT(before.size(), 20u);
}

// Its vocabulary takes the space of a first word away: behind a prefill there is none to take.
TEST_F(Session, APrefillIsGoneOnWith) {
    const qlora::Model model = stories();
    const qlora::Message asked{"user", "Tell one."};
    qlora::RenderOptions options{.reply_next = true, .prefill = "Once upon a"};
    const qlora::Tokens prompt = model.tokenizer().render(std::span(&asked, 1), options).tokens;
    const std::string expected = qlora::Session(model).complete(prompt, greedy(12)).text;
    ASSERT_TRUE(expected.starts_with(" ")) << expected;
    qlora::Session session(model);
    EXPECT_EQ(session.chat(std::span(&asked, 1), options, greedy(12)).text, "Once upon a" + expected);
    const std::string said = session.history().back().content;
    EXPECT_EQ(session.complete(session.history().back().content, greedy(5)).text,
              qlora::Session(model).complete(said, greedy(5)).text)
        << "the prompt may be a part of the dialogue that it replaces";
}

TEST_F(Session, ConversationGrowsAndResets) {
    qlora::Session session(stories());
    session.reset("You tell stories.");
    const std::string a = session.chat("Tell one.", greedy(12)).text;
    ASSERT_EQ(session.history().size(), 3u);
    EXPECT_EQ(session.history()[0].role, "system");
    EXPECT_EQ(session.history()[2].content, a);
    const std::string b = session.chat("And another.", greedy(12)).text;
    ASSERT_EQ(session.history().size(), 5u);
    auto history = session.history();
    history.resize(3);
    session.set_history(history);                      // undo, then the same again
    EXPECT_EQ(session.chat("And another.", greedy(12)).text, b);
    session.reset();
    EXPECT_TRUE(session.history().empty());
    EXPECT_NE(session.chat("And another.", greedy(12)).text, "");
}

TEST_F(Session, SeedsAndThreads) {
    qlora::Sampling s;
    s.seed = 5;
    s.temperature = 1;
    s.max_tokens = 40;
    qlora::Session one(stories(1)), three(stories(3));
    const std::string a = one.complete("The cat", s).text;
    EXPECT_EQ(a, one.complete("The cat", s).text);
    EXPECT_EQ(a, three.complete("The cat", s).text);
    s.seed = 6;
    EXPECT_NE(a, one.complete("The cat", s).text);
}

TEST_F(Session, StopsWhereTold) {
    qlora::Session session(stories());
    qlora::Sampling s = greedy(100);
    s.stop = {" Lily"};
    EXPECT_EQ(session.complete("Once upon a time", s).text, ", there was a little girl named");
    int calls = 0;
    std::string seen;
    const std::string reply = session.complete("Once upon a time", greedy(100), [&](std::string_view part) {
        seen += part;
        return ++calls < 4;
    }).text;
    EXPECT_EQ(calls, 4);
    EXPECT_EQ(reply, seen);
    EXPECT_EQ(session.complete("Once", greedy(0)).text, "");
}

TEST_F(Session, ContextIsALimit) {
    qlora::Session session(stories(), {.context = 32});
    std::string longer;
    for (int i = 0; i < 40; ++i) longer += "the dog ";
    const std::string error = error_of([&] { session.complete(longer, greedy(5)); });
    EXPECT_TRUE(contains(error, "context 32")) << error;
    session.complete("Once upon a time", greedy(500));
    EXPECT_EQ(session.stats().context_used, 32);       // the reply ends where the context does
    EXPECT_EQ(session.stats().context, 32);
    EXPECT_THROW(qlora::Session(stories(), {.context = 100000}), qlora::Error);
    EXPECT_THROW(qlora::Session(stories(), {.context = -1}), qlora::Error);
    session.reset();
    EXPECT_THROW(session.chat(longer, greedy(5)), qlora::Error);
    EXPECT_TRUE(session.history().empty());            // a failed turn leaves no trace
}

TEST(SessionWithoutWords, NeedsAVocabulary) {
    qlora::Session session(run_support::tiny_model());
    EXPECT_THROW(session.complete("x"), qlora::Error);
}

}  // namespace session_test
