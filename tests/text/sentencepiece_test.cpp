// sentencepiece_test.cpp - tokenizer.model: SentencePiece's and tiktoken's against their Python packages
// (tools/make_sentencepiece_golden.py, make_tiktoken_golden.py), what files beside it add, and damaged ones.
#include "src/base/file.h"
#include "src/model/model.h"
#include "src/text/sentencepiece.h"
#include "src/text/tiktoken.h"
#include "src/text/tokenizer_model.h"
#include "tests/support/linear.h"
#include "tests/support/sentencepiece_file.h"
#include "tests/support/support.h"

#include <filesystem>
#include <fstream>
#include <map>

namespace sentencepiece_test {

using namespace qlora;
namespace file = sentencepiece_file;
using Tokenizer = std::shared_ptr<const TokenizerImpl>;

Tokens encode(const Tokenizer& t, std::string_view text, bool controls = false) {
    Tokens out;
    controls ? t->encode_template(text, out) : t->encode(text, out);
    return out;
}

Tokens ids(const Json& json) {
    Tokens out;
    for (const Json& id : json.array()) out.push_back(Token(id.integer()));
    return out;
}

// A line: [name, string, ids, decoded text (null if the string)]
void check_golden(const char* golden, const std::map<std::string, Tokenizer>& tokenizers, int least) {
    std::ifstream in(golden_path(golden));
    std::map<std::string, int> rows;
    for (std::string line; std::getline(in, line);) {
        const Json row = Json::parse(line, golden);
        const Json::Array& fields = row.array();
        const std::string &name = fields[0].string(), &text = fields[1].string();
        const Tokenizer& t = tokenizers.at(name);
        const Tokens expected = ids(fields[2]);
        ++rows[name];
        ASSERT_EQ(encode(t, text), expected) << name << ": " << text;
        ASSERT_EQ(utf8_sanitize(t->decode(expected)), fields[3].is_null() ? text : fields[3].string()) << name;
        Tokens rendered;
        std::vector<int64_t> starts;
        t->encode_rendered(text, {}, rendered, &starts);
        ASSERT_EQ(starts.size(), rendered.size());
        ASSERT_TRUE(std::is_sorted(starts.begin(), starts.end())) << name << ": " << text;
    }
    for (const auto& [name, t] : tokenizers) EXPECT_GE(rows[name], least) << name;
}

TEST(SentencePiece, AsTheLibrary) {
    std::map<std::string, Tokenizer> all;
    for (const char* name : {"llama", "gemma", "bpe_nfkc", "unigram", "t5", "unigram_bytes", "unused"})
        all[name] = load_tokenizer(golden_path(str("sentencepiece/", name, ".model")));
    check_golden("sentencepiece.jsonl", all, 60);
}

TEST(Tiktoken, AsTheLibrary) {
    std::map<std::string, Tokenizer> all;
    for (const char* name : {"llama3", "qwen", "cl100k"})
        all[name] = load_tokenizer(golden_path(str("tiktoken/", name)));
    all["o200k"] = load_tokenizer(golden_path("tiktoken/o200k/o200k_base.tiktoken"));
    check_golden("tiktoken.jsonl", all, 60);
}

Tokenizer make(const std::string& bytes, const std::string& config = "null", const std::string& form = "") {
    return make_tokenizer(read_tokenizer_model(bytes, form, Json::parse(config, "config"), "a.model"), "a.model");
}

TEST(SentencePiece, WhatTheConfigurationSays) {
    const Tokenizer plain = make(file::model());
    EXPECT_EQ(plain->bos, 1);
    EXPECT_EQ(plain->eos, 2);
    EXPECT_TRUE(plain->add_bos);
    EXPECT_EQ(encode(plain, "he"), (Tokens{7}));
    EXPECT_EQ(encode(plain, "he<s>he"), (Tokens{7, 0, 6})) << "control tokens in user text are text";
    EXPECT_EQ(encode(plain, "he<s>he", true), (Tokens{7, 1, 7}));
    EXPECT_EQ(encode(make(file::model(), R"({"legacy": false})"), "he<s>he", true), (Tokens{7, 1, 6}));
    EXPECT_EQ(encode(make(file::model(), R"({"legacy": false})"), " he"), (Tokens{7}));
    EXPECT_EQ(encode(plain, " he"), (Tokens{3, 7}));
    EXPECT_EQ(encode(make(file::model(), R"({"add_prefix_space": false})"), "he he"), (Tokens{6, 7}));
    const Tokenizer chat = make(file::model(), R"({"add_bos_token": false, "eos_token": {"content": "<|im_end|>"}, "bos_token": null, "chat_template": "x",
        "added_tokens_decoder": {"9": {"content": "<|im_end|>", "special": true}, "8": {"content": "<n>", "special": false, "normalized": false, "rstrip": true}}})");
    EXPECT_EQ(chat->size(), 10);
    EXPECT_EQ(chat->bos, -1);
    EXPECT_EQ(chat->eos, 9);
    EXPECT_FALSE(chat->add_bos);
    EXPECT_EQ(chat->chat_template, "x");
    EXPECT_EQ(encode(chat, "he<n> he<|im_end|>", true), (Tokens{7, 8, 7, 9}));
    EXPECT_EQ(chat->decode(encode(chat, "he<n>he"), false), "he<n> he");
    EXPECT_THROW(make(file::model(), R"({"added_tokens_decoder": {"4": {"content": "<n>"}}})"), Error) << "it is h";
    EXPECT_THROW(make(file::model(), R"({"added_tokens_decoder": {"999999999999": {"content": "<n>"}}})"), Error);
    EXPECT_THROW(make(file::model(), R"({"eos_token": "<none>"})"), Error);
}

TEST(SentencePiece, FoldersWithoutATokenizerJson) {
    const std::string folder = testing::TempDir() + "qlora_sentencepiece";
    std::filesystem::remove_all(folder);
    std::filesystem::create_directory(folder);
    write_file_atomic(folder + "/tokenizer.model", file::model());
    write_file_atomic(folder + "/tokenizer_config.json", R"({"add_bos_token": false})");
    write_file_atomic(folder + "/added_tokens.json", R"({"<|im_start|>": 8, "<|im_end|>": 9})");
    write_file_atomic(folder + "/generation_config.json", R"({"eos_token_id": [2, 9]})");
    for (const std::string& path : {folder, folder + "/tokenizer.model"}) {
        const Tokenizer t = load_tokenizer(path);
        EXPECT_EQ(t->end_of_reply, (Tokens{2, 9}));
        EXPECT_FALSE(t->add_bos);
        EXPECT_EQ(encode(t, "<|im_start|>he<|im_end|>", true), (Tokens{8, 7, 9}));
    }
    const std::string bytes = file::model();
    const Tokenizer memory = load_tokenizer(Source::memory(std::as_bytes(std::span(bytes.data(), bytes.size()))));
    EXPECT_EQ(encode(memory, "he"), (Tokens{7}));
}

TEST(Tiktoken, ItsExpressionIsKnownOrRefused) {
    EXPECT_EQ(tiktoken_form("qwen.tiktoken", ""), "qwen");
    EXPECT_EQ(tiktoken_form("tokenizer.model", "llama"), "llama3");
    EXPECT_EQ(tiktoken_form("tokenizer.model", "made_up"), "");
    const Tokenizer llama = make(file::ranks(), "null", "llama3");
    EXPECT_EQ(llama->size(), 258 + 256);
    EXPECT_EQ(llama->bos, 258);
    EXPECT_EQ(encode(llama, "hel<|eot_id|>", true), (Tokens{257, 267}));
    ASSERT_EQ(llama->notes.size(), 1u);
    EXPECT_NE(llama->notes[0].find("llama3"), std::string::npos);
    const Tokenizer qwen = make(file::ranks(), "null", "qwen");
    EXPECT_EQ(qwen->id_of("<|extra_204|>"), 258 + 3 + 204);
    const Tokenizer named = make(file::ranks(), R"({"added_tokens_decoder": {"300": {"content": "<t>", "special": true}}})", "qwen");
    EXPECT_EQ(named->size(), 301);
    EXPECT_EQ(named->id_of("<|im_end|>"), -1);
    for (const auto& [bytes, form, said] :
         {std::tuple(file::ranks(), "", "how text is cut"), std::tuple(file::ranks() + "IQ== 256\n", "qwen", "twice"),
          std::tuple(file::ranks() + "aGU= 258\n", "qwen", "is also token"),
          std::tuple(file::ranks() + "aGU 258\n", "qwen", "not a token in base64"),
          std::tuple(file::ranks() + "aGVs 99999999\n", "qwen", "not so many"),
          std::tuple(std::string("IQ== 0\n"), "qwen", "256 bytes")}) {
        std::string error = "read";
        try { make(bytes, "null", form); } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find(said), std::string::npos) << error;
    }
}

TEST(SentencePiece, DamagedFilesSayWhatIsWrong) {
    const std::string whole = file::model();
    for (size_t cut = 0; cut < whole.size(); ++cut)
        EXPECT_THROW((void)read_sentencepiece(whole.substr(0, cut), "cut"), Error) << cut;
}

TEST(SentencePiece, HostileFilesSayWhatIsWrong) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    for (const auto& [bytes, said] :
         {std::pair(file::model(2, file::piece("he", -1)), "twice"),
          std::pair(file::model(2, file::piece("x", nan)), "score"),
          std::pair(file::model(2, file::piece("x", infinite)), "score"),
          std::pair(file::model(2, file::piece("", 0)), "empty"),
          std::pair(file::model(2, file::piece("x", 0, 7)), "type 7"),
          std::pair(file::model(2, file::piece("x", 0, 2)), "both the unknown"),
          std::pair(file::model(3), "not supported"),
          std::pair(file::model(2) + file::bytes(2, file::number(35, 1)), "byte_fallback"),
          std::pair(file::model(2) + file::bytes(2, file::number(24, 1)), "suffix"),
          std::pair(file::model(2, "", file::number(5, 0)), "escape_whitespaces"),
          std::pair(file::model(2, "", file::bytes(2, std::string("\xFF\xFF\xFF\xFFx\0", 6))), "character map"),
          std::pair(file::piece("a", 0) + file::bytes(2, "") + file::bytes(3, ""), "unknown one"),
          std::pair(file::piece("a", 0), "kind is missing"),
          std::pair(std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"), "not a whole"),
          std::pair(std::string("\x0A\xFF\xFF\xFF\x7F"), "are said to follow"),
          std::pair(std::string("\x0F"), "not a whole"),
          std::pair(file::model(1, file::piece(std::string(2000, 'a'), -1)), "2000 bytes")}) {
        std::string error = "read";
        try { make(bytes); } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find(said), std::string::npos) << error << " for " << said;
    }
}

// A character map whose trie leads out of itself, for every value of its units.
TEST(SentencePiece, CharacterMapsStayInside) {
    for (uint32_t unit = 0; unit < 1 << 14; ++unit) {
        const uint32_t units[3] = {unit << 9 | 1u << 10, 'h' | unit << 8, unit};
        std::string map("\x0C\0\0\0", 4);
        map.append(reinterpret_cast<const char*>(units), sizeof units).append("x\0", 2);
        try { encode(make(file::model(2, "", file::bytes(2, map))), "hhehh"); } catch (const Error&) {}
    }
}

TEST(SentencePiece, TimeGrowsWithTheText) {
    for (const char* name :
         {"sentencepiece/llama.model", "sentencepiece/gemma.model", "sentencepiece/t5.model",
          "sentencepiece/unigram_bytes.model", "tiktoken/cl100k", "tiktoken/o200k/o200k_base.tiktoken"}) {
        const Tokenizer t = load_tokenizer(golden_path(name));
        for (const std::string unit : {"a", "ab", " ", "\n", "a ", "\xE4\xBD\xA0", "'", "\n "}) {
            std::string text;
            while (text.size() < 1 << 19) text += unit;
            expect_linear(text, [&](const std::string& part) { encode(t, part); }, str(name, ": ", unit));
        }
    }
}

}  // namespace sentencepiece_test
