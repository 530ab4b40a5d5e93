// reply_test.cpp - what a reply says of itself, what may come next, and sessions that change, fork and come back.
#include "src/run/session.h"
#include "tests/run/speaker.h"

#include <chrono>
#include <thread>

namespace reply_test {

using namespace qlora;
using run_support::contains;
using run_support::endless;
using run_support::error_of;
using run_support::random_adapter;
using run_support::shakespeare;

Sampling few() { return endless(shakespeare(), {.temperature = 0, .max_tokens = 12}); }

TEST(Reply, SaysWhyItEnded) {
    const Model model = shakespeare();
    Session session(model);
    const Reply length = session.complete("O Romeo", few());
    EXPECT_EQ(length.finish, Finish::length);
    EXPECT_EQ(length.tokens.size(), 12u);
    EXPECT_EQ(length.stats.reply_tokens, 12);
    EXPECT_EQ(model.tokenizer().decode(length.tokens), length.text);
    Sampling stop = few();
    stop.stop = {length.text.substr(3, 4)};
    const Reply stopped = session.complete("O Romeo", stop);
    EXPECT_EQ(stopped.finish, Finish::stop_text);
    EXPECT_EQ(stopped.text, length.text.substr(0, length.text.find(stop.stop[0])));
    int pieces = 0;
    const Reply cancelled = session.complete("O Romeo", few(), [&](std::string_view) { return ++pieces < 3; });
    EXPECT_EQ(cancelled.finish, Finish::cancelled);
    EXPECT_EQ(length.text.rfind(cancelled.text, 0), 0u) << "a reply keeps its text";
    EXPECT_FALSE(cancelled.text.empty());
    Session small(model, {.context = 8});
    const Tokens two{1, 7};
    const Reply full = small.complete(two, few());
    EXPECT_EQ(full.finish, Finish::context_full);
    EXPECT_EQ(full.tokens.size(), 7u) << "6 more places, and the token after the last";
    EXPECT_EQ(session.complete("O Romeo", {.temperature = 0, .max_tokens = 0}).finish, Finish::length);
    EXPECT_EQ(session.complete("O Romeo", {.temperature = 0, .max_tokens = 12}).finish, Finish::end);
    Sampling end = few();
    end.mask = [&](std::span<const Token> reply, std::span<float> scores) {
        if (reply.size() == 3) std::fill(scores.begin(), scores.end(), -HUGE_VALF);
        if (reply.size() == 3) scores[size_t(model.tokenizer().eos())] = 0;
    };
    const Reply ended = session.complete("O Romeo", end);
    EXPECT_EQ(ended.finish, Finish::end);
    EXPECT_EQ(ended.tokens.back(), model.tokenizer().eos());
    EXPECT_EQ(name_of(ended.finish), "end");
}

// A slow mask: the reply ends with what it has.
TEST(Reply, EndsAtItsDeadline) {
    const Model model = shakespeare();
    Session session(model, {.context = 1000});
    const std::string whole = session.complete("O Romeo", few()).text;
    Sampling slow = few();
    slow.max_seconds = 1;
    slow.mask = [mask = slow.mask](std::span<const Token> reply, std::span<float> scores) {
        mask(reply, scores);
        std::this_thread::sleep_for(std::chrono::milliseconds(reply.size() < 3 ? 1 : 1050));
    };
    const Reply late = session.complete("O Romeo", slow);
    EXPECT_EQ(late.finish, Finish::deadline);
    EXPECT_EQ(name_of(late.finish), "deadline");
    EXPECT_TRUE(!late.tokens.empty() && late.tokens.size() <= 4u) << late.tokens.size();
    EXPECT_EQ(late.text, whole.substr(0, late.text.size()));
    session.reset();
    const Reply chat = session.chat("Who goes there?", slow);
    EXPECT_EQ(chat.finish, Finish::deadline);
    ASSERT_EQ(session.history().size(), 2u) << "what was said stays said";
    EXPECT_EQ(session.history()[1].content, chat.text);
    // no word of an answer, behind a short prompt and within a long one: the question was not asked
    Sampling none = few();
    none.max_seconds = 1e-9;
    std::string question;
    for (int i = 0; i < 10; ++i) question += "A question that is read in several pieces. ";
    for (const std::string& asked : {std::string("And?"), question}) {
        const Reply reply = session.chat(asked, none);
        EXPECT_EQ(reply.finish, Finish::deadline);
        EXPECT_EQ(reply.text, "");
        EXPECT_TRUE(reply.tokens.empty());
        EXPECT_EQ(session.history().size(), 2u);
    }
    Sampling ample = few();
    ample.max_seconds = 1000;
    EXPECT_EQ(session.complete("O Romeo", ample).text, whole);
    for (const double bad : {-1.0, double(NAN), double(INFINITY)})
        EXPECT_TRUE(contains(error_of([&] { session.complete("x", {.max_seconds = bad}); }), "max_seconds")) << bad;
}

TEST(Reply, LogprobsAreThoseOfTheScores) {
    const Model model = shakespeare();
    Session session(model, {.cache = DType::f32});
    Sampling sampling = few();
    sampling.logprobs = true;
    sampling.temperature = 1.5f;                       // not part of them
    const Tokens prompt = model.tokenizer().encode("Who goes there?", true);
    const Reply reply = session.complete(prompt, sampling);
    ASSERT_EQ(reply.logprobs.size(), reply.tokens.size());
    Tokens all = prompt;
    all.insert(all.end(), reply.tokens.begin(), reply.tokens.end());
    const std::vector<float> scores = model.logits(all);
    const size_t n = size_t(model.info().vocabulary);
    for (size_t i = 0; i < reply.tokens.size(); ++i) {
        const auto row = std::span(scores).subspan((prompt.size() + i - 1) * n, n);
        EXPECT_NEAR(reply.logprobs[i], logprob_of(row, reply.tokens[i]), 1e-3) << i;
    }
    EXPECT_TRUE(session.complete(prompt, few()).logprobs.empty());
}

TEST(Reply, TheMaskDecidesWhatMayCome) {
    const Model model = shakespeare();
    const Tokens yes_no = {model.tokenizer().encode("yes")[0], model.tokenizer().encode("no")[0]};
    for (const float temperature : {0.0f, 1.0f}) {
        Sampling s{.temperature = temperature, .max_tokens = 1};
        s.mask = [&](std::span<const Token>, std::span<float> scores) {
            for (size_t i = 0; i < scores.size(); ++i)
                if (Token(i) != yes_no[0] && Token(i) != yes_no[1]) scores[i] = -HUGE_VALF;
        };
        const Reply reply = Session(model).chat("Is it late?", s);
        EXPECT_TRUE(reply.tokens[0] == yes_no[0] || reply.tokens[0] == yes_no[1]) << temperature;
        s.mask = [](std::span<const Token>, std::span<float> scores) {
            std::fill(scores.begin(), scores.end(), -HUGE_VALF);
        };
        EXPECT_TRUE(contains(error_of([&] { Session(model).chat("Is it late?", s); }), "rules out every token"));
    }
}

TEST(Reply, MessagesToolsAndPrefill) {
    const Model model = shakespeare();
    Session session(model);
    const std::vector<Message> asked{{"system", "You act."}, {"user", "Who goes there?"}};
    RenderOptions options;
    options.prefill = "It is the";
    const Reply reply = session.chat(asked, options, few());
    EXPECT_EQ(reply.text.rfind("It is the", 0), 0u);
    ASSERT_EQ(session.history().size(), 3u);
    EXPECT_EQ(session.history()[2].content, reply.text);
    options.reply_next = true;
    const Rendered prompt = model.tokenizer().render(asked, options);
    EXPECT_TRUE(prompt.text.ends_with("It is the")) << prompt.text;
    EXPECT_EQ(reply.text.substr(9), Session(model).complete(prompt.tokens, few()).text);

    options = {.reply_next = true};
    options.chat_template = "{% for t in tools or [] %}[{{ t.name }}]{% endfor %}{% for m in messages %}<{{ m.role }}"
                            "{% if m.name %}:{{ m.name }}{% endif %}>{{ m.content }}{% endfor %}{{ mood or '' }}";
    options.tools = R"([{"name": "clock"}])";
    options.variables = R"({"mood": "!"})";
    const Message called{"tool", "noon", R"({"name": "clock"})"};
    EXPECT_EQ(model.tokenizer().render(std::span(&called, 1), options).text, "[clock]<tool:clock>noon!");
    for (const char* bad : {"{", "[]", "7"}) {
        const Message message{"user", "x", bad};
        EXPECT_TRUE(contains(error_of([&] { (void)model.tokenizer().render(std::span(&message, 1)); }), "more")) << bad;
    }
    options.tools = "{}";
    EXPECT_TRUE(contains(error_of([&] { (void)model.tokenizer().render(asked, options); }), "tools"));
    const RenderOptions closed{.prefill = "x"};
    EXPECT_TRUE(contains(error_of([&] { (void)model.tokenizer().render(asked, closed); }), "reply_next"));
}

TEST(Reply, AnotherAdapterGoesOnWithTheDialogue) {
    const Model model = shakespeare();
    const Lora lora = random_adapter(model, 3);
    Session session(model);
    session.chat("Who goes there?", few());
    const auto fresh = [&](const Adapted& a, size_t turns) {
        Session other(a);
        std::vector<Message> history = session.history();
        history.resize(turns);
        other.set_history(std::move(history));
        return other.chat("And then?", few()).text;
    };
    const std::string plain = fresh(model, 2), adapted = fresh(lora, 2);
    EXPECT_NE(plain, adapted) << "the adapter must matter";
    const std::vector<Message> before = session.history();
    for (const auto& [to, expected] : {std::pair{Adapted(lora), adapted}, std::pair{Adapted(model), plain}}) {
        session.adapt(to);
        EXPECT_EQ(session.chat("And then?", few()).text, expected);
        session.set_history(before);
    }
    session.adapt(lora, 0);
    EXPECT_EQ(session.chat("And then?", few()).text, plain);
    EXPECT_TRUE(contains(error_of([&] { session.adapt(shakespeare()); }), "another model"));
}

TEST(Reply, ForksGoOnFromHereApart) {
    const Model model = shakespeare();
    for (const std::optional<DType> type : {std::optional<DType>(), std::optional(DType::q8_0)}) {
        Session session(model, {.cache = type});
        session.chat("Who goes there?", few());
        Session fork = session.fork();
        EXPECT_EQ(fork.history().size(), session.history().size());
        const Reply a = fork.chat("And then?", few()), b = session.chat("And then?", few());
        EXPECT_EQ(a.text, b.text);
        fork.chat("Something else entirely.", few());
        Session again = session.fork();
        EXPECT_EQ(again.chat("Why?", few()).text, session.chat("Why?", few()).text)
            << "the fork's later turns left nothing";
    }
}

TEST(Reply, AConversationComesBackFromBytes) {
    const Model model = shakespeare();
    const Lora lora = random_adapter(model, 5), other = random_adapter(model, 6);
    Session session(lora, {.context = 128});
    session.chat("Who goes there?", few());
    const std::string saved = session.save();
    const std::string expected = session.chat("And then?", few()).text;
    Session back(lora, {.context = 128});
    back.restore(saved);
    EXPECT_EQ(back.history().size(), 2u);
    const Reply reply = back.chat("And then?", few());
    EXPECT_EQ(reply.text, expected);
    EXPECT_EQ(back.save(), session.save());
    for (const Adapted& target : {Adapted(other), Adapted(model)})
        EXPECT_TRUE(contains(error_of([&] { Session(target, {.context = 128}).restore(saved); }), "adapter"));
    EXPECT_TRUE(contains(error_of([&] { Session(lora, {.context = 64}).restore(saved); }), "context"));
    const Lora one = Lora::create(model, {.rank = 4, .alpha = 16}),
               stronger = Lora::create(model, {.rank = 4, .alpha = 32});
    ASSERT_EQ(one.fingerprint(), stronger.fingerprint());
    Session weak(one, {.context = 128});
    weak.chat("Who goes there?", few());
    EXPECT_TRUE(contains(error_of([&] { Session(stronger, {.context = 128}).restore(weak.save()); }), "adapter"));
    const SessionOptions exact{.context = 128, .cache = DType::f32};
    EXPECT_TRUE(contains(error_of([&] { Session(lora, exact).restore(saved); }), "cache"));
    for (size_t at = 0; at < saved.size(); at += 1 + saved.size() / 97) {
        std::string damaged = saved;
        damaged[at] = char(damaged[at] ^ 4);
        EXPECT_NE(error_of([&] { back.restore(damaged); }), "no error") << at;
        EXPECT_NE(error_of([&] { back.restore(std::string_view(saved).substr(0, at)); }), "no error") << at;
    }
    EXPECT_EQ(back.history().size(), 4u) << "what was refused changed nothing";
    EXPECT_EQ(back.chat("Why?", few()).text, session.chat("Why?", few()).text);
}

}  // namespace reply_test
