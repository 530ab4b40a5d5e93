// score_test.cpp - scores of continuations are sums of log-probabilities of the whole text; embeddings are the states
// that the scores are made of.
#include "src/base/access.h"
#include "src/run/generation.h"
#include "src/model/model.h"
#include "tests/run/speaker.h"

namespace score_test {

using namespace qlora;
using run_support::contains;
using run_support::error_of;
using run_support::shakespeare;

double expected(const Model& model, const Tokens& prompt, const Tokens& continuation) {
    Tokens all = prompt;
    all.insert(all.end(), continuation.begin(), continuation.end());
    const std::vector<float> scores = model.logits(all);
    const size_t n = size_t(model.info().vocabulary);
    double sum = 0;
    for (size_t i = 0; i < continuation.size(); ++i)
        sum += double(logprob_of(std::span(scores).subspan((prompt.size() + i - 1) * n, n), continuation[i]));
    return sum;
}

TEST(Score, IsTheSumOfTheWholeTexts) {
    const Model model = shakespeare();
    const Tokenizer words = model.tokenizer();
    Tokens longer;
    while (longer.size() < 150) longer.push_back(Token(20 + longer.size() * 7 % 200));         // more than a chunk
    for (const Tokens& prompt : {words.encode("Who goes there?", true), Tokens{1}, longer}) {
        const std::vector<Tokens> continuations{words.encode(" A friend."), {7}, longer, words.encode(" Stand and")};
        const std::vector<double> scores = score(model, prompt, continuations);
        ASSERT_EQ(scores.size(), 4u);
        for (size_t i = 0; i < 4; ++i)
            EXPECT_NEAR(scores[i], expected(model, prompt, continuations[i]), 2e-3 + 2e-5 * std::fabs(scores[i])) << i;
        EXPECT_EQ(score(model, prompt, std::span(continuations).subspan(3)), std::vector{scores[3]})
            << "the others change nothing";
    }
    EXPECT_EQ(score(shakespeare(3), longer, std::vector<Tokens>{{7, 8, 9}}),
              score(model, longer, std::vector<Tokens>{{7, 8, 9}}));
    EXPECT_TRUE(score(model, longer, std::vector<Tokens>{}).empty());
    for (const Tokens& bad : {Tokens{}, Tokens{-1}, Tokens{1 << 20}})
        EXPECT_NE(error_of([&] { (void)score(model, longer, std::vector<Tokens>{bad}); }), "no error");
    EXPECT_TRUE(contains(error_of([&] { (void)score(model, Tokens{}, std::vector<Tokens>{{1}}); }), "prompt is empty"));
    const Tokens endless(100000, 1);
    EXPECT_TRUE(contains(error_of([&] { (void)score(model, endless, std::vector<Tokens>{{1}}); }), "context"));
}

// The tokens that training would train.
TEST(Score, RepliesCountAsTheirTurnsAreTrained) {
    const Model model = shakespeare();
    const std::vector<Message> chat{{"user", "Is it late?"}, {"assistant", "Ay."}, {"user", "How late?"}};
    const std::vector<std::string> replies{"Noon.", "Past midnight, my lord.", "Past"};
    const std::vector<double> scores = score(model, chat, replies);
    for (size_t i = 0; i < replies.size(); ++i) {
        std::vector<Message> whole = chat;
        whole.push_back({"assistant", replies[i]});
        const Rendered r = model.tokenizer().render(whole);
        const std::vector<Message> before(chat.begin(), chat.end());
        const std::vector<float> rows = model.logits(r.tokens);
        const size_t n = size_t(model.info().vocabulary);
        // those of the last turn: behind the last token that is not trained and precedes one that is
        size_t first = r.tokens.size();
        while (first > 0 && !r.trained[first - 1]) --first;
        while (first > 0 && r.trained[first - 1]) --first;
        double sum = 0;
        for (size_t t = first; t < r.tokens.size(); ++t)
            if (r.trained[t]) sum += double(logprob_of(std::span(rows).subspan((t - 1) * n, n), r.tokens[t]));
        EXPECT_NEAR(scores[i], sum, 2e-3) << replies[i];
    }
    EXPECT_TRUE(score(model, chat, std::vector<std::string>{}).empty());
}

TEST(Score, EmbeddingsAreTheStatesBehindTheScores) {
    const Model model = shakespeare();
    const size_t hidden = size_t(model.info().hidden), n = size_t(model.info().vocabulary);
    const std::vector<std::string> texts{"To be, or not to be", "O", "My lord, the queen would speak with you"};
    const std::vector<float> last = embeddings(model, texts, Pooling::last, false);
    ASSERT_EQ(last.size(), texts.size() * hidden);
    const std::vector<float> head = impl_of(model)->at(Slot::head)->decoded();
    const bool bos = impl_of(model)->tokenizer->add_bos;
    for (size_t i = 0; i < texts.size(); ++i) {
        const Tokens tokens = model.tokenizer().encode(texts[i], bos);
        const std::vector<float> scores = model.logits(tokens);
        for (size_t token = 0; token < n; token += 97) {
            double sum = 0;
            for (size_t k = 0; k < hidden; ++k) sum += double(last[i * hidden + k]) * double(head[token * hidden + k]);
            EXPECT_NEAR(sum, scores[(tokens.size() - 1) * n + token], 5e-3) << i << ' ' << token;
        }
    }
    const std::vector<float> unit = embeddings(model, texts), mean = embeddings(model, texts, Pooling::mean, false);
    EXPECT_EQ(embeddings(model, std::span(texts).subspan(1, 1)),
              std::vector<float>(unit.begin() + ptrdiff_t(hidden), unit.begin() + ptrdiff_t(2 * hidden)))
        << "the other texts change nothing";
    for (size_t i = 0; i < texts.size(); ++i) {
        double squares = 0, along = 0, length = 0;
        for (size_t k = i * hidden; k < (i + 1) * hidden; ++k) {
            squares += double(unit[k]) * double(unit[k]);
            along += double(unit[k]) * double(mean[k]);
            length += double(mean[k]) * double(mean[k]);
        }
        EXPECT_NEAR(squares, 1, 1e-5);
        EXPECT_NEAR(along, std::sqrt(length), 1e-4 * std::sqrt(length));
    }
    const auto bad = [&] { (void)embeddings(model, texts, Pooling(7)); };
    EXPECT_TRUE(contains(error_of(bad), "pooling"));
}

}  // namespace score_test
