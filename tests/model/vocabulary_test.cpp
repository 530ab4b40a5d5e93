// vocabulary_test.cpp - a tokenizer goes from one kind of file to the other and gives the same ids.
#include "src/model/vocabulary.h"
#include "src/run/merge.h"

#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"
#include "src/tensor/encode.h"
#include "src/tensor/nf4.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

namespace vocabulary_test {

using namespace qlora;

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_vocabulary_" + name;
    std::filesystem::remove_all(path);
    return path;
}

// Words, numbers, signs, white space, other scripts and broken runs of all of them, glued in every way.
std::vector<std::string> texts(int count) {
    static const char* parts[] = {"the",
                                  " The",
                                  " harbour",
                                  "ing",
                                  "'s",
                                  "'LL",
                                  " 12345",
                                  "7",
                                  " 3.14",
                                  "\n",
                                  "\n\n",
                                  "  ",
                                  "   x",
                                  "\t",
                                  ", ",
                                  "...",
                                  "!?",
                                  " (",
                                  ") {",
                                  "_name",
                                  "::",
                                  "\xC3\xA9t\xC3\xA9",
                                  " na\xC3\xAFve",
                                  "\xE6\xBC\xA2\xE5\xAD\x97",
                                  "\xD0\xBC\xD0\xB8\xD1\x80",
                                  " \xD8\xB3\xD9\x84\xD8\xA7\xD9\x85",
                                  "\xF0\x9F\x98\x80",
                                  "\xE2\x82\xAC",
                                  "aaaaaaaa",
                                  "=====",
                                  "\r\n",
                                  "<s>",
                                  "<|im_end|>",
                                  "http://a.b/c?d=e"};
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
    auto model = tiny::make({.layers = 1,
                             .hidden = 8,
                             .heads = 1,
                             .kv_heads = 1,
                             .feed_forward = 8,
                             .vocabulary = tokenizer->size() + 3,
                             .tied = true});
    model->path = folder;
    model->tokenizer = std::move(tokenizer);
    Metadata metadata;
    metadata.files = read_text_files(folder);
    model->metadata = std::make_shared<const Metadata>(std::move(metadata));
    return model;
}

std::shared_ptr<ModelImpl> model_of_gguf(const std::string& path) {
    auto model = tiny::make({});
    Metadata metadata;
    metadata.gguf = Gguf::open(path)->copy();
    model->metadata = std::make_shared<const Metadata>(std::move(metadata));
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
    ASSERT_EQ(int64_t(vocabulary.tokens.size()), model->config.vocabulary)
        << "llama.cpp wants a token for every row of the embedding";
    // what llama.cpp sees, without the tokenizer.json that is kept beside it
    const auto plain = make_tokenizer(vocabulary, path);
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
INSTANTIATE_TEST_SUITE_P(Vocabulary, ToGguf,
                         testing::Values(std::pair("hf/llama3_1", "llama-bpe"), std::pair("hf/qwen3", "qwen2"),
                                         std::pair("hf/mistral", "default"), std::pair("hf/gemma3", "default"),
                                         std::pair("smollm2", "smollm")));

// What llama.cpp has no counterpart for is an error as a dense file, and none in 4 bits, which only we read.
TEST(Vocabulary, WithoutACounterpart) {
    const std::string folder = temporary("odd"), path = temporary("odd.gguf");
    std::filesystem::create_directory(folder);
    write_file_atomic(
        folder + "/tokenizer.json",
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "pre_tokenizer": {"type": "Digits", "individual_digits": true}})");
    const auto model = model_of(folder);
    std::string error = "saved";
    try { save_gguf_model(*model, path); } catch (const Error& e) { error = e.what(); }
    EXPECT_NE(error.find("no counterpart"), std::string::npos) << error;
    EXPECT_FALSE(exists(path));
    auto codes = tiny::make({.tied = true});
    EXPECT_NO_THROW(save_gguf_model(*codes, path));
    EXPECT_EQ(Gguf::open(path)->string("tokenizer.ggml.model", ""), "none");
}

// A tokenizer.model: as llama.cpp sees it, in our own GGUF files and in folders, also out of such a file.
class ModelFile : public testing::TestWithParam<std::tuple<const char*, const char*, const char*>> {};

TEST_P(ModelFile, IsSavedInBothKindsOfFiles) {
    const auto& [from, name, kind] = GetParam();
    const std::string folder = temporary("model_folder"), path = temporary("model.gguf"), back = temporary("back");
    std::filesystem::create_directory(folder);
    write_file_atomic(folder + "/" + name, read_file(golden_path(from)));
    write_file_atomic(folder + "/tokenizer_config.json", R"({"add_bos_token": true, "chat_template": "{{ bos_token }}"})");
    const std::string type = kind == std::string("gpt2") ? "llama" : "mistral";
    write_file_atomic(folder + "/config.json", R"({"model_type": ")" + type + "\"}");
    auto model = model_of(folder);
    auto metadata = std::make_shared<Metadata>(*model->metadata);
    metadata->config = Json::parse(read_file(folder + "/config.json"), "config");
    model->metadata = metadata;
    save_gguf_model(*model, path);
    const auto file = Gguf::open(path);
    EXPECT_EQ(file->string("tokenizer.ggml.model", ""), kind);
    const auto plain = make_tokenizer(gguf_vocabulary(*file), path);
    const auto loaded = tiny::load(path);
    save_hf_model(*loaded, back);
    EXPECT_TRUE(read_file(back + "/" + name) == read_file(folder + "/" + name));
    EXPECT_FALSE(exists(back + "/tokenizer.json"));
    const auto again = load_tokenizer(back);
    EXPECT_EQ(loaded->tokenizer->chat_template, "{{ bos_token }}");
    EXPECT_EQ(loaded->tokenizer->end_of_reply, model->tokenizer->end_of_reply);
    EXPECT_EQ(loaded->tokenizer->rules, model->tokenizer->rules) << "an adapter's base is the same";
    for (const std::string& text : texts(1000)) {
        const Tokens expected = encode(*model->tokenizer, text);
        ASSERT_EQ(encode(*loaded->tokenizer, text), expected) << text;
        ASSERT_EQ(encode(*again, text), expected) << text;
        ASSERT_EQ(encode(*plain, text), expected) << text;
    }
}
INSTANTIATE_TEST_SUITE_P(
    Vocabulary, ModelFile,
    testing::Values(std::tuple("sentencepiece/llama.model", "tokenizer.model", "llama"),
                    std::tuple("sentencepiece/t5.model", "tokenizer.model", "t5"),
                    std::tuple("tiktoken/llama3/tokenizer.model", "tokenizer.model", "gpt2"),
                    std::tuple("tiktoken/qwen/qwen.tiktoken", "qwen.tiktoken", "gpt2")));

// A normalizer, which llama.cpp does not know for BPE.
TEST(Vocabulary, ModelFilesWithoutACounterpart) {
    for (const char* name : {"sentencepiece/bpe_nfkc.model", "sentencepiece/unigram_bytes.model"}) {
        const std::string folder = temporary("nfkc"), path = temporary("nfkc.gguf");
        std::filesystem::create_directory(folder);
        write_file_atomic(folder + "/tokenizer.model", read_file(golden_path(name)));
        std::string error = "saved";
        try { save_gguf_model(*model_of(folder), path); } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find("no counterpart"), std::string::npos) << error;
    }
}

class ToHuggingFace : public testing::TestWithParam<const char*> {};

TEST_P(ToHuggingFace, GivesTheSameIds) {
    const std::string path = data_path(GetParam());
    if (!exists(path)) GTEST_SKIP() << "needs ../shared/data";
    const auto model = model_of_gguf(path);
    const auto expected = gguf_tokenizer(*model->metadata->gguf);
    const TextFiles files = hf_vocabulary(*model);
    const auto again = load_tokenizer_json(Json::parse(files.tokenizer, "t"), Json::parse(files.config, "c"), "t");
    EXPECT_EQ(again->bos, expected->bos);
    EXPECT_EQ(again->eos, expected->eos);
    EXPECT_EQ(again->add_bos, expected->add_bos);
    EXPECT_EQ(again->end_of_reply, expected->end_of_reply);
    EXPECT_EQ(files.chat_template, expected->chat_template);
    ASSERT_EQ(again->size(), expected->size());
    for (const std::string& text : texts(2000)) {
        const Tokens ids = encode(*expected, text);
        ASSERT_EQ(encode(*again, text), ids) << text;
        ASSERT_EQ(again->decode(ids, false), expected->decode(ids, false)) << text;
    }
    Tokens ours, theirs;                               // control tokens, where a template writes them
    const std::string rendered = str(expected->bos_text, "Hello", expected->eos_text, " there");
    expected->encode_template(rendered, ours);
    again->encode_template(rendered, theirs);
    EXPECT_EQ(theirs, ours);
}
INSTANTIATE_TEST_SUITE_P(Vocabulary, ToHuggingFace,
                         testing::Values("tokenizer/ggml-vocab-llama-spm.gguf", "tokenizer/ggml-vocab-gpt-2.gguf",
                                         "model/stories260K/stories260K.gguf", "model/llama-2-tiny-random.gguf"));

TEST(Vocabulary, WithoutACounterpartInHuggingFace) {
    const std::string path = data_path("tokenizer/ggml-vocab-deepseek-coder.gguf");
    if (!exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizer";
    const auto model = model_of_gguf(path);
    std::string error = "saved";
    try { hf_vocabulary(*model); } catch (const Error& e) { error = e.what(); }
    EXPECT_NE(error.find("deepseek-coder"), std::string::npos) << error;
}

// A whole model: GGUF to a folder and back, with its text, in both row orders and with every kind of rotary scaling.
TEST(GgufToFolder, IsTheSameModel) {
    const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8, 14, 30};
    using Kind = RopeScaling::Kind;
    for (const std::string& family : tiny::every_family())
        for (const Kind kind : {Kind::none, Kind::linear, Kind::yarn, Kind::llama3}) {
            auto model = tiny::make(
                {.family = family, .window = family == "mistral" ? 3 : 0, .tied = kind == Kind::linear});
            const bool turns = !model->config.learned_positions;
            if (!turns && kind != Kind::none) continue;
            RopeScaling s;
            s.kind = kind;
            s.factor = kind == Kind::none ? 1 : 8;
            s.original_context = kind == Kind::llama3 ? 8192 : double(model->config.context);
            set_frequencies(model->config, 500000, s, "test");
            if (family_named(family)->plain_sliding) set_sliding_frequencies(model->config, 500000, "test");
            const std::string path = temporary("model.gguf"), folder = temporary("folder");
            const bool divisors = family_named(family)->rope_freqs;
            // Queries grow by yarn's original context, which config.json has once.
            if (model->config.query_growth > 0 && (kind == Kind::yarn || kind == Kind::llama3))
                model->config.query_growth_every = int64_t(s.original_context);
            // llama.cpp reads divisors of frequencies in some files only, and turns all layers by yarn.
            if ((!divisors && kind == Kind::llama3) || (family == "gemma3_text" && kind == Kind::yarn)) {
                EXPECT_THROW(save_gguf_model(*model, path), Error);
                model = convert_model(*model, DType::nf4, true);
            }
            save_gguf_model(*model, path);
            const auto from = tiny::load(path);
            EXPECT_EQ(from->metadata->rope_freqs != nullptr, kind == Kind::llama3);
            if (turns) { EXPECT_EQ(from->config.inverse_frequencies, model->config.inverse_frequencies); }
            EXPECT_NEAR(from->config.rope_magnitude, model->config.rope_magnitude, 1e-6);
            // One layer for queries and keys, whose rows GGUF has in another order, but for codes.
            if (family == "hf_olmo" && model->at(Module::q_proj, 0)->ref().dtype != DType::nf4) {
                EXPECT_THROW(save_hf_model(*from, folder), Error);
                continue;
            }
            save_hf_model(*from, folder);
            const auto again = tiny::load(folder);
            EXPECT_EQ(again->config.family, family);
            EXPECT_EQ(again->config.tied, model->config.tied);
            EXPECT_EQ(again->config.window, model->config.window);
            EXPECT_EQ(again->config.eps, model->config.eps);
            EXPECT_EQ(again->config.context, model->config.context);
            const std::vector<float> a = tiny::logits(again, nullptr, ids), b = tiny::logits(model, nullptr, ids);
            ASSERT_EQ(a.size(), b.size());
            for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-4) << family << ", scaling " << int(kind);
            EXPECT_EQ(again->at(Module::q_proj, 0)->decoded(), model->at(Module::q_proj, 0)->decoded())
                << "rows in Hugging Face order again";
        }
}

TEST(GgufToFolder, RealFiles) {
    const std::string path = data_path("model/stories260K/stories260K.gguf"), folder = temporary("stories"),
                      codes = temporary("codes.gguf");
    if (!exists(path)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
    const auto model = tiny::load(path);
    save_hf_model(*model, folder);
    const auto again = tiny::load(folder);
    const Tokens ids = encode(*model->tokenizer, "Once upon a time, there was a little girl.");
    EXPECT_EQ(encode(*again->tokenizer, "Once upon a time, there was a little girl."), ids);
    const std::vector<float> a = tiny::logits(again, nullptr, ids), b = tiny::logits(model, nullptr, ids);
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-4);
    // A folder in 4 bits as GGUF keeps its tokenizer.json, and gives it back.
    save_gguf_model(*tiny::load(folder, DType::nf4), codes);
    const std::string back = temporary("back");
    save_hf_model(*tiny::load(codes), back);
    EXPECT_TRUE(read_file(back + "/tokenizer.json") == read_file(folder + "/tokenizer.json"));
}

// 4-bit codes that GGUF's row order holds: rows of q and k move, and where a row is whole blocks their codes move with
// them.
TEST(GgufToFolder, FourBitCodes) {
    const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8, 14, 30};
    for (const int64_t hidden : {64, 32})
        for (const DType head : {DType::f32, DType::q8_0}) {
            auto model = tiny::make({.hidden = hidden, .heads = 4, .head_dim = 16, .feed_forward = 64});
            for (const Slot s : {Slot::embedding, Slot::head})
                model->at(s) = std::make_shared<const Weight>(convert_weight(*model->at(s), head));
            const std::string path = temporary("four.gguf"), folder = temporary("four");
            save_gguf_model(*model, path);
            const auto held = tiny::load(path, DType::nf4);
            ASSERT_TRUE(held->config.adjacent_pairs);
            save_hf_model(*held, folder);
            const auto again = tiny::load(folder);
            EXPECT_EQ(again->at(Slot::embedding)->dtype, head == DType::f32 ? DType::f32 : DType::bf16);
            EXPECT_EQ(Json::parse(read_file(folder + "/config.json"), folder).find("torch_dtype")->string(),
                      head == DType::f32 ? "float32" : "bfloat16");
            EXPECT_EQ(again->at(Module::q_proj, 0)->quant.source, again->at(Slot::embedding)->dtype);
            const Weight &q = *held->at(Module::k_proj, 1),
                         &r = *again->at(Module::k_proj, 1);
            for (int64_t row = 0; hidden == 64 && row < q.shape[0]; ++row)
                ASSERT_EQ(std::memcmp(r.data + row * hidden / 2, q.data + gguf_row_of_hf(row, 16) * hidden / 2,
                                      size_t(hidden / 2)),
                          0)
                    << row;
            EXPECT_EQ(again->at(Module::v_proj, 1)->decoded(),
                      held->at(Module::v_proj, 1)->decoded())
                << "the others stay bit for bit";
            const std::vector<float> a = tiny::logits(again, nullptr, ids), b = tiny::logits(held, nullptr, ids),
                                     dense = tiny::logits(model, nullptr, ids);
            double moved = 0, rounding = 0;
            for (size_t i = 0; i < a.size(); ++i) {
                moved += std::fabs(double(a[i] - b[i]));
                rounding += std::fabs(double(b[i] - dense[i]));
            }
            EXPECT_LT(moved, (hidden == 64 ? 0.1 : 1.0) * rounding);
        }
}

TEST(Shards, LoadAsOneFileDoes) {
    const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8, 14, 30};
    for (const bool codes : {false, true}) {
        const std::string first = temporary("source"), folder = temporary("shards"), whole = temporary("whole");
        save_gguf_model(*tiny::make({.family = "qwen3", .hidden = 64}), first + ".gguf");
        auto model = tiny::load(first + ".gguf");
        if (codes) model = convert_model(*model, DType::nf4, true);
        save_hf_model(*model, folder, 12'000);
        save_hf_model(*model, whole);
        EXPECT_TRUE(exists(whole + "/model.safetensors"));
        EXPECT_FALSE(exists(whole + "/model.safetensors.index.json"));
        EXPECT_FALSE(exists(folder + "/model.safetensors"));
        const Json index = Json::parse(read_file(folder + "/model.safetensors.index.json"), "index");
        const auto one = SafeTensors::open(whole + "/model.safetensors");
        int64_t total = 0;
        std::map<std::string, int64_t> sizes;
        for (const SafeTensor& t : one->tensors()) {
            total += t.bytes;
            const Json* file = index.find("weight_map")->find(t.name);
            ASSERT_TRUE(file) << t.name;
            sizes[file->string()] += t.bytes;
            const auto shard = SafeTensors::open(folder + "/" + file->string());
            ASSERT_TRUE(shard->find(t.name));
            EXPECT_EQ(std::memcmp(shard->find(t.name)->data, t.data, size_t(t.bytes)), 0) << t.name;
            const size_t part = t.name.find(".weight.");
            if (part != t.name.npos) {
                EXPECT_EQ(file->string(), index.find("weight_map")->find(t.name.substr(0, part + 7))->string())
                    << t.name;
            }
        }
        EXPECT_EQ(index.find("weight_map")->object().size(), one->tensors().size());
        EXPECT_EQ(index.find("metadata")->find("total_size")->integer(), total);
        EXPECT_GE(sizes.size(), size_t(3));
        // the largest tensor is 64 x 64 floats
        for (const auto& [file, size] : sizes) EXPECT_LE(size, codes ? 12'000 : 16'384) << file;
        EXPECT_EQ(sizes.begin()->first, str("model-00001-of-", std::string(sizes.size() < 10 ? "0000" : "000"),
                                            sizes.size(), ".safetensors"));
        EXPECT_EQ(tiny::logits(tiny::load(folder), nullptr, ids), tiny::logits(tiny::load(whole), nullptr, ids));
    }
}

}  // namespace vocabulary_test
