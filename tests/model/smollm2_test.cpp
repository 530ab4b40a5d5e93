// smollm2_test.cpp - a real model against transformers on the same dequantized weights: perplexity, logits, greedy
// continuations.
//
// Needs SmolLM2-135M-Instruct.Q4_1.gguf (make demo fetches it into models/; QLORA_SMOLLM2 names another place). The
// reference values come from tools/make_smollm2_golden.py.
#include "qlora.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace smollm2_test {

inline std::string model_path() {
    const char* given = std::getenv("QLORA_SMOLLM2");
    return given && *given ? given : "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

struct Case { const char* name; std::optional<qlora::DType> quantize; };
class SmolLM2 : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        if (!qlora::exists(model_path())) GTEST_SKIP() << "needs " << model_path() << " (make demo fetches it)";
        golden = qlora::Json::parse(qlora::read_file(golden_path("smollm2.json")), "smollm2.json");
        model = qlora::Model::load(model_path(), {.backend = qlora::Backend::cpu(), .quantize = GetParam().quantize});
    }
    const qlora::Json& expected() const { return *golden.find(GetParam().name); }
    qlora::Json golden;
    std::optional<qlora::Model> model;
};

inline qlora::Tokens ids(const qlora::Json& array) {
    qlora::Tokens out;
    for (const qlora::Json& x : array.array()) out.push_back(qlora::Token(x.integer()));
    return out;
}

// Few tokens take their activations as 16-bit integers where exactness was not asked for: after all layers that moves
// logits by less than a thousandth of their size.
TEST_P(SmolLM2, ActivationsInIntegersMoveLogitsLittle) {
    const qlora::Backend mixed = qlora::Backend::cpu(0, qlora::Compute::mixed);
    if (mixed.compute() == qlora::Compute::f32) GTEST_SKIP() << "this processor has no products in integers";
    const qlora::Model rounded = qlora::Model::load(model_path(), {.backend = mixed, .quantize = GetParam().quantize});
    double squares = 0, differences = 0;
    for (const qlora::Json& prompt : expected().find("greedy")->array()) {
        qlora::Tokens some = ids(*prompt.find("prompt"));
        some.resize(std::min<size_t>(some.size(), 4));
        const std::vector<float> exact = model->logits(some), near = rounded.logits(some);
        for (size_t i = 0; i < exact.size(); ++i) {
            squares += double(exact[i]) * exact[i];
            differences += (double(near[i]) - exact[i]) * (double(near[i]) - exact[i]);
        }
    }
    const double relative = std::sqrt(differences / squares);
    EXPECT_GT(relative, 0);
    EXPECT_LT(relative, 1e-3);
    std::printf("logits move by %.1e of their size\n", relative);
}

// Fed with the reference's own continuation, the best next token must be the reference's at every position: then, by
// induction, greedy generation gives the same tokens.
TEST_P(SmolLM2, GreedyContinuationsAgreeTokenForToken) {
    for (const qlora::Json& prompt : expected().find("greedy")->array()) {
        qlora::Tokens sequence = ids(*prompt.find("prompt"));
        const qlora::Tokens answer = ids(*prompt.find("ids"));
        const size_t first = sequence.size() - 1;
        sequence.insert(sequence.end(), answer.begin(), answer.end());
        const std::vector<float> logits = model->logits(sequence);
        const size_t vocabulary = logits.size() / sequence.size();
        for (size_t k = 0; k < answer.size(); ++k) {
            // A tie within rounding may fall either way (the reference's own margin is 1e-4 at one of these 640
            // positions).
            const float* row = &logits[(first + k) * vocabulary];
            const float best = *std::max_element(row, row + vocabulary);
            ASSERT_LT(best - row[answer[k]], 1e-3f) << "token " << k << " after prompt of " << first + 1;
        }
        const qlora::Tokens top = ids(*prompt.find("top_ids"));
        for (size_t k = 0; k < top.size(); ++k)
            EXPECT_NEAR(logits[first * vocabulary + size_t(top[k])], prompt.find("top_logits")->array()[k].number(),
                        2e-3)
                << "logit of token " << top[k];
    }
}

TEST_P(SmolLM2, PerplexityOfWikiText) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "26,000 tokens take minutes under a sanitizer; the other tests cover the code";
#endif
    const std::string path = data_path("lm/wikitext2_test.txt");
    if (!qlora::exists(path)) GTEST_SKIP() << "needs " << path;
    const std::string text = qlora::read_file(path).substr(0, size_t(golden.find("text_bytes")->integer()));
    const qlora::Tokens tokens = model->tokenizer().encode(text);
    ASSERT_EQ(int64_t(tokens.size()), golden.find("text_tokens")->integer());
    const qlora::Perplexity p = qlora::perplexity(*model, tokens, golden.find("context")->integer(),
                                                  golden.find("stride")->integer());
    EXPECT_EQ(p.tokens, expected().find("tokens")->integer());
    const double reference = std::exp(expected().find("nll")->number());
    EXPECT_NEAR(p.perplexity / reference, 1.0, 0.005);
    RecordProperty("perplexity", std::to_string(p.perplexity));
    RecordProperty("reference", std::to_string(reference));
}

INSTANTIATE_TEST_SUITE_P(Weights, SmolLM2, testing::Values(Case{"q4_1", std::nullopt}, Case{"nf4", qlora::DType::nf4}),
                         [](const testing::TestParamInfo<Case>& of) { return std::string(of.param.name); });

}  // namespace smollm2_test
