// evaluate_test.cpp - perplexity against a plain computation from whole logits, and against the published loss of the
// story model.
#include "src/base/access.h"
#include "src/run/evaluate.h"
#include "tests/run/run_support.h"

namespace evaluate_test {

// -log softmax of the next token, from the scores of all tokens of one window.
double nll(const std::vector<float>& logits, size_t row, size_t vocabulary, qlora::Token next) {
    const float* s = logits.data() + row * vocabulary;
    double most = s[0], sum = 0;
    for (size_t i = 0; i < vocabulary; ++i) most = std::max(most, double(s[i]));
    for (size_t i = 0; i < vocabulary; ++i) sum += std::exp(double(s[i]) - most);
    return most + std::log(sum) - double(s[next]);
}

qlora::Tokens tokens(size_t count) {
    qlora::Rng rng{1, 0, 0};
    qlora::Tokens t;
    for (size_t i = 0; i < count; ++i) t.push_back(qlora::Token(rng.below(64)));
    return t;
}

TEST(Evaluate, PerplexityScoresEveryTokenOnceWithItsContext) {
    const qlora::Model model = run_support::tiny_model();
    for (const auto& [count, context, stride] :
         {std::tuple{100, 32, 16}, std::tuple{100, 32, 5}, std::tuple{33, 32, 31}, std::tuple{32, 32, 16},
          std::tuple{7, 32, 16}, std::tuple{2, 2, 1}}) {
        const qlora::Tokens t = tokens(size_t(count));
        double sum = 0;
        for (int i = 1; i < count; ++i) {              // token i is scored in the first window that reaches it
            int begin = 0;
            while (begin + context <= i) begin += stride;
            const std::vector<float> logits = model.logits(std::span(t).subspan(size_t(begin), size_t(i - begin)));
            sum += nll(logits, size_t(i - begin - 1), 64, t[size_t(i)]);
        }
        const qlora::Perplexity p = qlora::perplexity(model, t, context, stride);
        EXPECT_EQ(p.tokens, count - 1);
        EXPECT_NEAR(p.nll, sum / (count - 1), 1e-5) << count << " " << context << " " << stride;
        EXPECT_NEAR(p.perplexity, std::exp(p.nll), 1e-9 * p.perplexity);
    }
    EXPECT_THROW((void)qlora::perplexity(model, tokens(1)), qlora::Error);
    EXPECT_THROW((void)qlora::perplexity(model, tokens(9), 4, 4), qlora::Error);
    EXPECT_THROW((void)qlora::perplexity(model, qlora::Tokens{1, 2, 99}), qlora::Error);
}

TEST(Evaluate, AnAdapterCounts) {
    const qlora::Lora lora = qlora::Lora::load(run_support::tiny_model(), golden_path("training/adapter"));
    const qlora::Perplexity base = qlora::perplexity(lora.base(), tokens(50), 32, 16),
                            adapted = qlora::perplexity(lora, tokens(50), 32, 16);
    EXPECT_GT(std::fabs(base.nll - adapted.nll), 1e-4);
}

TEST(Evaluate, DatasetLossIsTheMeanOverAllTrainedTokens) {
    const qlora::Model model = run_support::tiny_model();
    const auto rows = run_support::random_rows(60, 8, 5, 60);          // several runs of 1024 rows
    double sum = 0;
    int64_t count = 0;
    for (const auto& row : rows) {
        const std::vector<float> logits = model.logits(row.tokens);
        for (size_t i = 1; i < row.tokens.size(); ++i) {
            if (!row.trained[i]) continue;
            sum += nll(logits, i - 1, 64, row.tokens[i]);
            ++count;
        }
    }
    EXPECT_NEAR(qlora::evaluate(model, run_support::dataset(rows)), sum / double(count), 1e-5);
}

TEST(Evaluate, TheStoryIsLikelyAndItsContinuationChosen) {
    if (!qlora::exists(data_path("model/stories260K/stories260K.gguf"))) GTEST_SKIP() << "needs ../shared/data";
    const qlora::Model model = qlora::Model::load(data_path("model/stories260K/stories260K.gguf"),
                                                  {.backend = qlora::Backend::cpu(1, qlora::Compute::f32)});
    const qlora::Json expected = qlora::Json::parse(qlora::read_file(data_path("model/stories260K/expected.json")),
                                                    "expected.json");
    for (const qlora::Json& e : expected.find("computed")->find("nll")->array()) {
        const qlora::Tokens t = model.tokenizer().encode(e.find("text")->string(), true);
        EXPECT_NEAR(qlora::perplexity(model, t, 512, 256).nll, e.find("mean_nll")->number(), 1e-4);
    }
    const std::vector<std::string> choices{" purple theorem eleven", " play outside in the park.", " zzz"};
    EXPECT_EQ(qlora::best_choice(model, "Once upon a time, there was a little girl named Lily. She loved to", choices),
              1);
    EXPECT_THROW((void)qlora::best_choice(model, "x", std::vector<std::string>{}), qlora::Error);
    EXPECT_THROW((void)qlora::best_choice(model, "x", std::vector<std::string>{""}), qlora::Error);
}

TEST(Evaluate, ChoicesOfATextWithControlTokensAreThoseOfItsTokens) {
    if (!qlora::exists(data_path("model/stories260K/stories260K.gguf"))) GTEST_SKIP() << "needs ../shared/data";
    const qlora::Model model = qlora::Model::load(data_path("model/stories260K/stories260K.gguf"),
                                                  {.backend = qlora::Backend::cpu(1, qlora::Compute::f32)});
    const qlora::TokenizerImpl& t = *impl_of(model.tokenizer());
    // Mean log-probability per byte of what a choice adds, from whole logits, of the tokens as a reading of the text
    // gives them.
    const auto score = [&](const std::string& query, const std::string& choice, bool control) {
        const auto read = [&](const std::string& text) {
            qlora::Tokens tokens;
            if (control) t.encode_template(text, tokens);
            else t.encode(text, tokens);
            if (tokens[0] != t.bos) tokens.insert(tokens.begin(), t.bos);
            return tokens;
        };
        const qlora::Tokens asked = read(query), whole = read(query + choice);
        const std::vector<float> logits = model.logits(whole);
        double sum = 0;
        size_t i = size_t(std::mismatch(asked.begin(), asked.end(), whole.begin(), whole.end()).second - whole.begin());
        for (; i < whole.size(); ++i) sum -= nll(logits, i - 1, size_t(t.size()), whole[i]);
        return sum / double(choice.size());
    };
    const std::vector<std::string> choices{
        " He ran.</s>", " He ran.</s><s>", " They play</s>", " was very happy", "</s>", "</s><s> Once upon a time",
        " zzz"};
    int flipped = 0;
    for (const std::string query :
         {"<s> Once upon a time, there was a dog.", "<s> Lily was sad.</s><s> Tom", "One day, a cat"}) {
        std::vector<double> read, spelled;
        for (const std::string& choice : choices) {
            read.push_back(score(query, choice, true));
            spelled.push_back(score(query, choice, false));
        }
        for (size_t a = 0; a < choices.size(); ++a)
            for (size_t b = a + 1; b < choices.size(); ++b) {
                const std::vector<std::string> pair{choices[a], choices[b]};
                EXPECT_EQ(qlora::best_choice(model, query, pair), read[b] > read[a])
                    << query << "[" << choices[a] << "|" << choices[b];
                flipped += (read[b] > read[a]) != (spelled[b] > spelled[a]);
            }
    }
    EXPECT_GT(flipped, 0);                             // reading them as text would answer otherwise
}

}  // namespace evaluate_test
