// context_test.cpp - texts longer than the model's context: refused wherever a text goes in, with the values; what cuts
// says how much it cut.
#include "src/base/access.h"
#include "src/model/model.h"
#include "src/run/evaluate.h"
#include "tests/run/run_support.h"

#include <fstream>
#include <gtest/gtest.h>

namespace context_test {

using namespace qlora;
using namespace run_support;

// The tiny model with 16 tokens of context; dynamic: its configuration asks for scaling beyond them.
Model short_model(bool dynamic) {
    auto model = std::make_shared<ModelImpl>(*impl_of(tiny_model()));
    model->config.context = 16;
    model->config.dynamic_rope = dynamic;
    return handle_of<Model>(model);
}

class Context : public testing::TestWithParam<bool> {
protected:
    Model model = short_model(GetParam());
    Lora lora = Lora::create(model, {.rank = 2});
    Tokens fits = Tokens(16, 5), longer = Tokens(17, 5);

    template <class Call>
    void refused(const Call& call) const {
        const std::string error = error_of(call);
        EXPECT_TRUE(contains(error, "17")) << error;
        EXPECT_TRUE(contains(error, "16")) << error;
        EXPECT_EQ(contains(error, "\"dynamic\""), GetParam() && !contains(error, "Session") &&
                                                      !contains(error, "perplexity") && !contains(error, "train:"))
            << error;
    }
    static Dataset rows_of(size_t length) {
        return dataset(
            {{Tokens(length, 5), std::vector<uint8_t>(length, 1)}, {Tokens(4, 6), std::vector<uint8_t>(4, 1)}});
    }
};

TEST_P(Context, Scores) {
    EXPECT_FALSE(model.logits(fits).empty());
    refused([&] { (void)model.logits(longer); });
    EXPECT_FALSE(lora.logits(fits).empty());
    refused([&] { (void)lora.logits(longer); });
}

TEST_P(Context, Measures) {
    EXPECT_GT(perplexity(model, Tokens(40, 5), 16, 8).tokens, 0);
    refused([&] { (void)perplexity(model, longer, 17, 8); });
    refused([&] { (void)perplexity(lora, longer, 17, 8); });
    EXPECT_GT(perplexity(model, fits, 512, 8).tokens, 0);    // a window that no text fills sees no more than the text
    EXPECT_GT(evaluate(model, rows_of(16)), 0);
    refused([&] { (void)evaluate(model, rows_of(17)); });
    refused([&] { (void)evaluate(lora, rows_of(17)); });
    EXPECT_EQ(difference(model, model, longer).tokens, 17);            // in windows that fit
}

TEST_P(Context, Training) {
    const TrainOptions wide{.max_steps = 1, .accumulate = 1, .context = 64},
        narrow{.max_steps = 1, .accumulate = 1, .context = 16};
    EXPECT_TRUE(Trainer(lora, rows_of(16), wide).step());
    refused([&] { Trainer(lora, rows_of(17), wide); });
    Trainer cut(lora, rows_of(17), narrow);            // cut because its options say so
    EXPECT_TRUE(cut.step());
    EXPECT_EQ(cut.last().tokens <= 16, true);
    Trainer whole(lora, rows_of(16), wide);
    refused([&] { (void)whole.evaluate(rows_of(17)); });
    EXPECT_GT(cut.evaluate(rows_of(17)), 0);
}

TEST_P(Context, Sessions) {
    EXPECT_EQ(Session(model).stats().context, 16);
    refused([&] { Session(model, {.context = 17}); });
    refused([&] { Session(lora, {.context = 17}); });
}
INSTANTIATE_TEST_SUITE_P(Run, Context, testing::Bool(),
                         [](const auto& of) { return of.param ? "Dynamic" : "Plain"; });

// Loaded with its model, a data set is cut to the model's context, and counts what it cut.
TEST(ContextOfData, IsThatOfTheModel) {
    const std::string vocabulary = data_path("tokenizer/smollm2");
    if (!exists(vocabulary)) GTEST_SKIP() << "needs ../shared/data/tokenizer";
    auto model = std::make_shared<ModelImpl>(*impl_of(short_model(false)));
    model->tokenizer = load_tokenizer(vocabulary);
    const TemporaryFolder folder("qlora-context");
    std::ofstream(folder / "rows.jsonl")
        << R"({"prompt": "Count.", "completion": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"})"
        << "\n";
    const Dataset data = Dataset::load(folder / "rows.jsonl", handle_of<Model>(model));
    EXPECT_LE(data.info().longest, 16);
    EXPECT_EQ(data.info().truncated + data.info().dropped, 1);
}

}  // namespace context_test
