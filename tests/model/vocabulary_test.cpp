// vocabulary_test.cpp - a tokenizer goes from one kind of file to the other and gives the same ids.
#include "src/model/vocabulary.h"

#include "src/model/gguf_model.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace vocabulary_test {

using namespace qlora;

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_vocabulary_" + name;
    std::filesystem::remove_all(path);
    return path;
}

// Words, numbers, signs, white space, other scripts and broken runs of all of them, glued in every way.
std::vector<std::string> texts(int count) {
    static const char* parts[] = {"the", " The", " harbour", "ing", "'s", "'LL", " 12345", "7", " 3.14", "\n", "\n\n", "  ", "   x", "\t", ", ", "...", "!?", " (", ") {", "_name", "::", "\xC3\xA9t\xC3\xA9",
        " na\xC3\xAFve", "\xE6\xBC\xA2\xE5\xAD\x97", "\xD0\xBC\xD0\xB8\xD1\x80", " \xD8\xB3\xD9\x84\xD8\xA7\xD9\x85", "\xF0\x9F\x98\x80", "\xE2\x82\xAC", "aaaaaaaa", "=====", "\r\n", "<s>", "<|im_end|>", "http://a.b/c?d=e"};
    Rng rng{11, 0, 0};
    std::vector<std::string> out;
    for (int i = 0; i < count; ++i) {
        std::string text;
        for (uint64_t n = 1 + rng.below(12); n > 0; --n) text += parts[rng.below(std::size(parts))];
        out.push_back(text);
    }
    return out;
}

Tokens encode(const TokenizerImpl& t, const std::string& text) {
    Tokens ids;
    t.encode(text, ids);
    return ids;
}

std::shared_ptr<ModelImpl> model_of(const std::string& folder) {
    auto tokenizer = load_tokenizer(folder);
    auto model = tiny::make({.layers = 1, .hidden = 8, .heads = 1, .kv_heads = 1, .feed_forward = 8, .vocabulary = tokenizer->size() + 3, .tied = true});
    model->path = folder;
    model->tokenizer = std::move(tokenizer);
    return model;
}

class ToGguf : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(ToGguf, GivesTheSameIds) {
    const auto& [name, pre] = GetParam();
    const std::string folder = data_path(std::string("tokenizer/") + name), path = temporary("out.gguf");
    if (!exists(folder)) GTEST_SKIP() << "needs ../shared/data/tokenizer";
    const auto model = model_of(folder);
    save_gguf_model(*model, path);
    const auto file = Gguf::open(path);
    EXPECT_EQ(file->string("tokenizer.ggml.pre", ""), pre);
    const Vocabulary vocabulary = gguf_vocabulary(*file);
    ASSERT_EQ(int64_t(vocabulary.tokens.size()), model->config.vocabulary) << "llama.cpp wants a token for every row of the embedding";
    const auto plain = make_tokenizer(vocabulary, path);               // what llama.cpp sees, without the tokenizer.json that is kept beside it
    EXPECT_EQ(plain->bos, model->tokenizer->bos);
    EXPECT_EQ(plain->eos, model->tokenizer->eos);
    EXPECT_EQ(plain->add_bos, model->tokenizer->add_bos);
    EXPECT_EQ(plain->end_of_reply, model->tokenizer->end_of_reply);
    const auto ours = tiny::load(path)->tokenizer;
    for (const std::string& text : texts(2000)) {
        const Tokens expected = encode(*model->tokenizer, text);
        ASSERT_EQ(encode(*plain, text), expected) << text;
        ASSERT_EQ(encode(*ours, text), expected) << text;
        ASSERT_EQ(plain->decode(expected, false), model->tokenizer->decode(expected, false)) << text;
    }
}
INSTANTIATE_TEST_SUITE_P(Vocabulary, ToGguf, testing::Values(std::pair("hf/llama3_1", "llama-bpe"), std::pair("hf/qwen3", "qwen2"), std::pair("hf/mistral", "default"), std::pair("smollm2", "smollm")));

// What llama.cpp has no counterpart for is an error as a dense file, and none in 4 bits, which only we read.
TEST(Vocabulary, WithoutACounterpart) {
    const std::string folder = temporary("odd"), path = temporary("odd.gguf");
    std::filesystem::create_directory(folder);
    write_file_atomic(folder + "/tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "pre_tokenizer": {"type": "Digits", "individual_digits": true}})");
    const auto model = model_of(folder);
    std::string error = "saved";
    try { save_gguf_model(*model, path); } catch (const Error& e) { error = e.what(); }
    EXPECT_NE(error.find("no counterpart"), std::string::npos) << error;
    EXPECT_FALSE(exists(path));
    auto codes = tiny::make({.tied = true});
    EXPECT_NO_THROW(save_gguf_model(*codes, path));
    EXPECT_EQ(Gguf::open(path)->string("tokenizer.ggml.model", ""), "none");
}

}  // namespace vocabulary_test
