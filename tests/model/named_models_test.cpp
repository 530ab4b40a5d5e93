// named_models_test.cpp - models that are others' shapes under names of their own: which family reads their
// configuration, their chat format against jinja2, and that only answers are taught, to the letter
// (tools/make_named_models_golden.py).
#include "src/base/file.h"
#include "src/model/dialogue.h"
#include "src/model/hf_model.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <sstream>

namespace named_models_test {

using namespace qlora;

// A token for each character, and the control tokens of all of them.
std::shared_ptr<const TokenizerImpl> with_template(const std::string& source) {
    Json vocab{Json::Object()}, model, decoder, json, config;
    Json::Array added;
    int64_t next = 0;
    for (char c = ' '; c <= '~'; ++c) vocab.set(std::string(1, c), next++);
    vocab.set("\n", next++);
    for (const char* token : {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>",
                              "<|end_header_id|>", "<|end_of_turn|>"})
        added.push_back(Json().set("id", next++).set("content", token).set("special", true));
    model.set("type", "BPE").set("vocab", vocab).set("merges", Json(Json::Array()));
    json.set("model", model).set("added_tokens", Json(added)).set("decoder", decoder.set("type", "Fuse"));
    config.set("chat_template", source).set("bos_token", "<s>").set("eos_token", "</s>");
    return load_tokenizer_json(json, config, "test");
}

std::vector<std::string> taught(const TokenizerImpl& t, const Rendered& r) {
    std::vector<std::string> out;
    for (size_t i = 0; i < r.tokens.size(); ++i) {
        if (!r.trained[i]) continue;
        if (i == 0 || !r.trained[i - 1]) out.emplace_back();
        out.back() += t.piece(r.tokens[i], true);
    }
    return out;
}

TEST(NamedModels, LoadAndSpeakAsPublished) {
    std::istringstream lines(read_file(golden_path("named_models.jsonl")));
    int models = 0;
    for (std::string line; std::getline(lines, line); ++models) {
        const Json row = Json::parse(line, "named_models.jsonl");
        const std::string& name = row.find("name")->string();
        SCOPED_TRACE(name);
        const Json& published = *row.find("config");
        const Config c = hf_config(published, name);
        EXPECT_EQ(c.family, row.find("family")->string());
        EXPECT_EQ(c.context, published.find("max_position_embeddings")->integer());
        EXPECT_EQ(c.kv_heads, published.find("num_key_value_heads")->integer());
        EXPECT_EQ(c.window, name.starts_with("Starling") ? 4096 : 0);
        const auto tokenizer = with_template(row.find("template")->string());
        const DialogueRenderer renderer(*tokenizer);
        const TrainingText r = renderer.train({*row.find("messages"), {}});
        EXPECT_EQ(r.text, row.find("text")->string());
        std::vector<std::string> said;
        for (const Json& s : row.find("said")->array()) said.push_back(s.string());
        EXPECT_EQ(taught(*tokenizer, r), said);
        Json question{Json::Array()};
        question.push(row.find("messages")->array()[0]);
        EXPECT_EQ(renderer.reply({question, {}}, "").text, row.find("asked")->string());
    }
    EXPECT_EQ(models, 7);
}

}  // namespace named_models_test
