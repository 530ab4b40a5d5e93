// tokenizer_json_test.cpp - real tokenizer.json files against the Python package, small ones for every component, and
// those that must be refused.
#include "src/base/file.h"
#include "src/text/tokenizer.h"
#include "src/text/utf8.h"
#include "tests/support/support.h"

#include <fstream>

namespace tokenizer_json_test {

using qlora::Json, qlora::Token, qlora::Tokens;
using Tokenizer = std::shared_ptr<const qlora::TokenizerImpl>;

inline Tokenizer load(const std::string& path) {
    const std::string config = path.substr(0, path.rfind('/')) + "/tokenizer_config.json";
    return load_tokenizer_json(Json::parse(qlora::read_file(path), path),
                               std::ifstream(config) ? Json::parse(qlora::read_file(config), config) : Json(), path);
}

inline Tokens ids(const Json& json) {
    Tokens out;
    for (const Json& id : json.array()) out.push_back(Token(id.integer()));
    return out;
}

inline Tokens encode(const Tokenizer& t, std::string_view text, bool controls = false) {
    Tokens out;
    controls ? t->encode_template(text, out) : t->encode(text, out);
    return out;
}

// tests/golden/tokenizer_json.jsonl, written by tools/make_tokenizer_golden.py, which says what a line holds.
inline void check_file(const std::string& name, const std::string& file) {
    const std::string path = data_path("tokenizer/" + file);
    if (!std::ifstream(path)) GTEST_SKIP() << "needs ../shared/data";
    const Tokenizer t = load(path);
    std::ifstream in(golden_path("tokenizer_json.jsonl"));
    int rows = 0;
    for (std::string line; std::getline(in, line);) {
        const Json row = Json::parse(line, "tokenizer_json.jsonl");
        const Json::Array& fields = row.array();
        if (fields[0].string() != name) continue;
        ++rows;
        const std::string& text = fields[1].string();
        const Tokens plain = ids(fields[2]);
        EXPECT_EQ(encode(t, text), plain) << name << ": " << text;
        EXPECT_EQ(encode(t, text, true), fields[3].is_null() ? plain : ids(fields[3])) << name << ": " << text;
        EXPECT_EQ(qlora::utf8_sanitize(t->decode(plain)), fields[4].is_null() ? text : fields[4].string()) << name;
        Tokens rendered;
        std::vector<int64_t> starts;
        t->encode_rendered(text, {}, rendered, &starts);
        ASSERT_EQ(starts.size(), rendered.size());
        EXPECT_TRUE(std::is_sorted(starts.begin(), starts.end())) << text;
        EXPECT_TRUE(starts.empty() || (starts.front() >= 0 && starts.back() <= int64_t(text.size()))) << text;
    }
    EXPECT_GE(rows, 60);
}
TEST(TokenizerJsonFiles, Smollm2) { check_file("smollm2", "smollm2/tokenizer.json"); }
TEST(TokenizerJsonFiles, Llama31) { check_file("llama3_1", "hf/llama3_1/tokenizer.json"); }
TEST(TokenizerJsonFiles, Qwen3) { check_file("qwen3", "hf/qwen3/tokenizer.json"); }
TEST(TokenizerJsonFiles, Gemma3) { check_file("gemma3", "hf/gemma3/tokenizer.json"); }
TEST(TokenizerJsonFiles, Mistral) { check_file("mistral", "hf/mistral/tokenizer.json"); }
TEST(TokenizerJsonFiles, TinyBpe) { check_file("tiny_bpe", "torchtune/tiny_bpe_tokenizer.json"); }

TEST(TokenizerJsonFiles, SpecialTokensAndTemplates) {
    const std::string path = data_path("tokenizer/hf/llama3_1/tokenizer.json");
    if (!std::ifstream(path)) GTEST_SKIP() << "needs ../shared/data";
    const Tokenizer t = load(path);
    EXPECT_EQ(t->bos, 128000);
    EXPECT_EQ(t->bos_text, "<|begin_of_text|>");
    EXPECT_TRUE(t->add_bos);
    EXPECT_FALSE(t->add_eos);
    EXPECT_EQ(t->size(), 128256);
    EXPECT_FALSE(t->chat_template.empty());
    for (const char* name : {"<|eot_id|>", "<|end_of_text|>"})
        EXPECT_NE(std::find(t->end_of_reply.begin(), t->end_of_reply.end(), t->id_of(name)), t->end_of_reply.end())
            << name;
}

// A model of single letters, space and "ab"; the rest of the file is up to each test.
inline std::string file(const std::string& parts, const std::string& model = "") {
    std::string text =
        R"({"model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, " ": 4, "▁": 5, "▁a": 6, "c": 7, "<x>": 8, "-": 9},
        "merges": ["a b", ["▁", "a"]])";
    return text + model +
           R"(}, "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 8, "content": "<x>", "special": true}])" +
           parts + "}";
}
inline Tokenizer parse(const std::string& text, const std::string& config = "null") {
    return load_tokenizer_json(Json::parse(text, "small.json"), Json::parse(config, "config"), "small.json");
}

TEST(TokenizerJson, ModelOptions) {
    EXPECT_EQ(encode(parse(file("")), "ab?!c"), (Tokens{3, 0, 0, 7}));
    EXPECT_EQ(encode(parse(file("", R"(, "fuse_unk": true)")), "ab?!c"), (Tokens{3, 0, 7}));
    EXPECT_EQ(encode(parse(file("", R"(, "dropout": null, "end_of_word_suffix": "")")), "a<x>"), (Tokens{1, 0, 0, 0}));
    EXPECT_EQ(encode(parse(file("")), "a<x>b", true), (Tokens{1, 8, 2}));
}

TEST(TokenizerJson, Normalizers) {
    EXPECT_EQ(encode(parse(file(R"(, "normalizer": {"type": "Lowercase"})")), "AB"), (Tokens{3}));
    EXPECT_EQ(encode(parse(file(R"(, "normalizer": {"type": "Strip", "strip_left": true, "strip_right": true})")),
                     " \n a \t"),
              (Tokens{1}));
    EXPECT_EQ(
        encode(parse(file(R"(, "normalizer": {"type": "Strip", "strip_left": false, "strip_right": true})")), " a "),
        (Tokens{4, 1}));
    EXPECT_EQ(
        encode(parse(file(R"(, "normalizer": {"type": "Strip", "strip_left": true, "strip_right": true})")), "   "),
        Tokens{});
    EXPECT_EQ(
        encode(parse(file(R"(, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})")),
               "a a"),
        (Tokens{6, 6}));
}

TEST(TokenizerJson, PreTokenizers) {
    const auto split = [](const std::string& behavior) {
        return parse(file(R"(, "pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": ")" +
                          behavior + R"("})"));
    };
    EXPECT_EQ(encode(split("Isolated"), "abab"), (Tokens{1, 2, 1, 2}));
    EXPECT_EQ(encode(split("Contiguous"), "aab"), (Tokens{1, 1, 2}));
    EXPECT_EQ(encode(split("MergedWithPrevious"), "abab"), (Tokens{1, 2, 1, 2}));
    EXPECT_EQ(encode(split("MergedWithNext"), "abab"), (Tokens{3, 3}));
    const auto metaspace = [](const std::string& options) {
        return parse(file(R"(, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", )" + options +
                          R"(}, "decoder": {"type": "Metaspace", "replacement": "▁", )" + options + "}"));
    };
    EXPECT_EQ(encode(metaspace(R"("prepend_scheme": "always", "split": true)"), "a a"), (Tokens{6, 6}));
    EXPECT_EQ(encode(metaspace(R"("prepend_scheme": "never")"), "a a"), (Tokens{1, 6}));
    EXPECT_EQ(encode(metaspace(R"("prepend_scheme": "first")"), "a<x>a", true), (Tokens{6, 8, 1}));
    EXPECT_EQ(encode(metaspace(R"("add_prefix_space": true)"), "a<x>a", true), (Tokens{6, 8, 6}));
    EXPECT_EQ(metaspace(R"("prepend_scheme": "always")")->decode(Tokens{6, 6}), "a a");
    EXPECT_EQ(metaspace(R"("prepend_scheme": "never")")->decode(Tokens{6, 6}), " a a");
}

TEST(TokenizerJson, AddedTokenFlags) {
    const auto with = [](const std::string& flags) {
        return parse(
            R"({"model": {"vocab": {"a": 0, "b": 1, " ": 2}, "merges": []}, "added_tokens": [{"id": 3, "content": "<t>", "special": false, )" +
            flags + "}]}");
    };
    EXPECT_EQ(encode(with(R"("lstrip": false)"), "a <t> b"), (Tokens{0, 2, 3, 2, 1}));
    EXPECT_EQ(encode(with(R"("lstrip": true)"), "a <t> b"), (Tokens{0, 3, 2, 1}));
    EXPECT_EQ(encode(with(R"("rstrip": true)"), "a <t> b"), (Tokens{0, 2, 3, 1}));
    EXPECT_EQ(encode(with(R"("single_word": true)"), "<t>a <t> b<t>"), (Tokens{0, 2, 3, 2, 1}));
}

TEST(TokenizerJson, ConfigNamesTheSpecialTokens) {
    const Tokenizer t = parse(
        file(
            R"(, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}}, {"Sequence": {"id": "A"}}]})"),
        R"({"eos_token": {"content": "<unk>"}, "chat_template": [{"name": "default", "template": "T"}, {"name": "rag", "template": "R"}]})");
    EXPECT_EQ(t->bos, 8);
    EXPECT_TRUE(t->add_bos);
    EXPECT_EQ(t->eos, 0);
    EXPECT_EQ(t->eos_text, "<unk>");
    EXPECT_EQ(t->chat_template, "T");
    EXPECT_FALSE(
        parse(
            file(
                R"(, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}}, {"Sequence": {"id": "A"}}]})"),
            R"({"add_bos_token": false})")
            ->add_bos);
}

TEST(TokenizerJson, RefusesByName) {
    const auto refused = [](const std::string& text, const char* name) {
        try {
            parse(text);
            ADD_FAILURE() << "accepted " << name;
        } catch (const qlora::Error& e) {
            EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
            EXPECT_NE(std::string(e.what()).find("small.json"), std::string::npos) << e.what();
        }
    };
    refused(file(R"(, "normalizer": {"type": "Nmt"})"), "Nmt");
    refused(file(R"(, "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}x"}, "content": " "})"), "{2,}x");
    refused(file(R"(, "pre_tokenizer": {"type": "UnicodeScripts"})"), "UnicodeScripts");
    refused(file(R"(, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"})"),
            "\\w+");
    refused(file(R"(, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "Dropped"})"),
            "Dropped");
    refused(
        file(
            R"(, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]})"),
        "Digits");
    refused(file(R"(, "post_processor": {"type": "RobertaProcessing"})"), "RobertaProcessing");
    refused(file(R"(, "decoder": {"type": "WordPiece"})"), "WordPiece");
    refused(file("", R"(, "dropout": 0.1)"), "dropout");
    refused(file("", R"(, "continuing_subword_prefix": "##")"), "continuing_subword_prefix");
    refused(R"({"model": {"type": "Unigram"}})", "Unigram");
    refused(R"({"version": "1.0"})", "model");
    refused(R"([1, 2])", "model");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": 0}}})", "merges");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})", "\"ab\"");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}})", "parts");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})", "id 0");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": 2147483647}, "merges": []}})", "2147483647");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})", "-1");
    refused(R"({"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}})", "vocab");
    refused(R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})", "0 tokens");
    refused(R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"content": "x"}]})", "no id");
    EXPECT_EQ(
        encode(parse(R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1, "content": ""}]})"),
               "aa"),
        (Tokens{0, 0}));
}

}  // namespace tokenizer_json_test
