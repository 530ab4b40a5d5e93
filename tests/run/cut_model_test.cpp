// cut_model_test.cpp - a model file that is cut or overwritten while the model is in use: whatever was being computed
// becomes an error that names the file, and nothing is kept of it.
#include "src/run/checkpoint.h"
#include "tests/run/run_support.h"

#include <chrono>
#include <cstdio>
#include <thread>

namespace cut_model_test {

namespace fs = std::filesystem;
using run_support::error_of;
using run_support::TemporaryFolder;

struct CutModel : testing::Test {
    TemporaryFolder folder{"qlora-cut-"};
    std::string path = folder / "model.gguf";
    qlora::Tokens tokens{1, 2, 3, 4, 5};
    void SetUp() override { qlora::guard_mapped_files(); }
    qlora::Model load(std::optional<qlora::DType> quantize = {}) {
        fs::copy_file("models/tiny.gguf", path, fs::copy_options::overwrite_existing);
        return qlora::Model::load(path, {.backend = qlora::Backend::cpu(3), .quantize = quantize});
    }
    void cut() { fs::resize_file(path, 100'000); }      // the metadata stays; the weights of the later layers are gone
    template <class Use>
    void expect_error(const char* what, const Use& use) {
        const std::string error = error_of(use);
        EXPECT_EQ(error.rfind(path + ": was cut from ", 0), 0u) << what << ": " << error;
    }
};

TEST_F(CutModel, EveryUseIsAnError) {
    const qlora::Model model = load();
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 2});
    const qlora::Dataset data = run_support::dataset(run_support::random_rows(4));
    const std::vector<float> before = model.logits(tokens);
    cut();
    expect_error("logits", [&] { (void)model.logits(tokens); });
    expect_error("logits again", [&] { (void)model.logits(tokens); });
    expect_error("with an adapter", [&] { (void)lora.logits(tokens); });
    expect_error("perplexity", [&] { (void)qlora::perplexity(model, tokens, 4, 2); });
    expect_error("evaluate", [&] { (void)qlora::evaluate(lora, data); });
    expect_error("difference", [&] { (void)qlora::difference(model, model, tokens); });
    expect_error("convert", [&] { (void)model.convert(qlora::DType::q8_0); });
    expect_error("convert to nf4", [&] { (void)model.convert(qlora::DType::nf4); });
    expect_error("merge", [&] { (void)lora.merge(qlora::DType::f16); });
    for (const char* out : {"copy.gguf", "copy"}) {
        expect_error("save", [&] { model.save(folder / out); });
        expect_error("save as", [&] { model.save(folder / out, {.as = qlora::DType::f16}); });
        expect_error("save merged", [&] { lora.save(folder / out, {.as = qlora::DType::f16, .merged = true}); });
    }
    expect_error("the weights of a graph", [&] {
        qlora::Graph graph(model.backend());
        const qlora::Tensor y = matmul(
            graph.input({2, model.info().feed_forward}),
            graph.weight(model, "blk." + std::to_string(model.info().layers - 1) + ".ffn_down.weight"));
        graph.run();
        (void)graph.read(y);
    });
    EXPECT_EQ(qlora::names_in(folder.path.string()), std::vector<std::string>{"model.gguf"});
    EXPECT_EQ(qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(1)}).logits(tokens).size(),
              before.size());
}

TEST_F(CutModel, InTheMiddleOfAReply) {
    const qlora::Model model = load();
    qlora::Session session(model, {.context = 200});
    int pieces = 0;
    expect_error("chat", [&] {
        session.chat("Who goes there?", {.temperature = 0, .max_tokens = 50}, [&](std::string_view piece) {
            if (!piece.empty() && ++pieces == 3) cut();
            return true;
        });
    });
    EXPECT_EQ(pieces, 3);
    EXPECT_TRUE(session.history().empty());
}

TEST_F(CutModel, BetweenTwoSteps) {
    const qlora::Model model = load();
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 2});
    qlora::Trainer trainer(lora, run_support::dataset(run_support::random_rows(8)),
                           {.max_steps = 5, .accumulate = 2, .context = 40, .learning_rate = 1e-2f});
    ASSERT_TRUE(trainer.step());
    ASSERT_TRUE(trainer.step());
    const std::vector<float> after_two = run_support::values_of(lora);
    cut();
    expect_error("step", [&] { trainer.step(); });
    expect_error("evaluate", [&] { (void)trainer.evaluate(run_support::dataset(run_support::random_rows(2))); });
    EXPECT_EQ(trainer.last().step, 2);
    EXPECT_EQ(run_support::values_of(lora), after_two);
    lora.save(folder / "adapter");    // what was learned before is not lost; its record has no fingerprint of zeros
    EXPECT_NE(qlora::read_file(folder / "adapter/base.json").find("\"fingerprint\": null"), std::string::npos)
        << qlora::read_file(folder / "adapter/base.json");
}

TEST_F(CutModel, WhileItIsLoaded) {
    for (const std::optional<qlora::DType> quantize :
         {std::optional<qlora::DType>(), std::optional(qlora::DType::nf4)}) {
        fs::copy_file("models/tiny.gguf", path, fs::copy_options::overwrite_existing);
        qlora::LoadOptions options{.backend = qlora::Backend::cpu(2), .quantize = quantize};
        options.on_progress = [&](float fraction) {
            if (fraction > 0.2f) cut();
            return true;
        };
        expect_error("load", [&] { (void)qlora::Model::load(path, options); });
    }
}

TEST_F(CutModel, OverwrittenInPlace) {
    const qlora::Model model = load();
    (void)model.logits(tokens);
    std::string other = qlora::read_file(path);
    for (size_t i = other.size() / 2; i < other.size(); ++i) other[i] = char(other[i] ^ 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));        // the clock of file times is coarse
    FILE* file = std::fopen(path.c_str(), "r+b");       // no moment at which the file is short: nothing ever faults
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(std::fwrite(other.data(), 1, other.size(), file), other.size());
    std::fclose(file);
    EXPECT_EQ(error_of([&] { (void)model.logits(tokens); }).rfind(path + ": was written to while it was in use", 0),
              0u);
}

}  // namespace cut_model_test
