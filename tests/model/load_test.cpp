// load_test.cpp - what both loaders refuse, and what they say: layers that the configuration does not know, rotary
// factors beyond any model, ends of text that do not exist, vocabularies with parts missing.
#include "src/model/load.h"

#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

namespace load_test {

using namespace qlora;
using Key = GgufWriter::Type;

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_load_" + name;
    std::filesystem::remove_all(path);
    return path;
}

template <class Call>
std::string error_of(const Call& call) {
    try { call(); } catch (const Error& e) { return e.what(); }
    return "no error";
}

void expect_error(const std::string& error, std::string_view part) {
    EXPECT_NE(error.find(part), std::string::npos) << error << "\n  lacks: " << part;
}

// A GGUF file with some of its keys changed (a null: taken out); the tensors stay.
std::string changed(const std::string& path, const std::vector<std::pair<std::string, Json>>& keys) {
    const auto file = Gguf::open(path);
    GgufWriter w;
    for (const GgufPair& p : file->pairs()) w.copy(*file, p);
    for (const auto& [key, value] : keys) {
        std::erase_if(w.pairs, [&, k = key](const GgufWriter::Pair& p) { return p.key == k; });
        const Key integer = value.is_int() && value.as_int(key) >> 32 ? Key::u64 : Key::u32;
        if (!value.is_null()) w.set(key, value.is_int() ? integer : value.is_string() ? Key::string : Key::f64, value);
    }
    for (const GgufTensor& t : file->tensors())
        w.add({t.name, t.ggml_type, t.shape, t.bytes, [&](AtomicFile& f) { f.write(file->data(t), t.bytes); }});
    const std::string out = path + ".changed";
    w.write(out);
    return out;
}

std::string gguf_file(int64_t layers = 2) {
    const std::string path = temporary("model.gguf");
    save_gguf_model(*tiny::make({.layers = layers, .adjacent = true}), path);
    return path;
}

std::string hf_folder(const Json& changes = Json()) {
    const std::string folder = temporary("folder");
    save_hf_model(*tiny::load(gguf_file()), folder);
    Json config = Json::parse(read_file(folder + "/config.json"), "config");
    for (const auto& [key, value] : changes.object()) config.set(key, value);
    write_file_atomic(folder + "/config.json", config.dump());
    return folder;
}

TEST(Load, FewerLayersThanTheFileHas) {
    const std::string file = gguf_file(3);
    EXPECT_EQ(tiny::load(file)->layers.size(), 3u);
    expect_error(error_of([&] { tiny::load(changed(file, {{"llama.block_count", Json(2)}})); }), "blk.2.");
    EXPECT_EQ(tiny::load(hf_folder())->layers.size(), 2u);
    expect_error(error_of([&] { tiny::load(hf_folder(Json{}.set("num_hidden_layers", 1))); }), "model.layers.1.");
}

// Products of such sizes overflow: they are refused before a shape is made of them.
TEST(Load, AbsurdSizes) {
    const std::string file = gguf_file();
    const struct { const char *key, *name; } sizes[] = {{"block_count", "number of layers"},
                                                        {"embedding_length", "hidden size"},
                                                        {"attention.head_count", "number of heads"},
                                                        {"attention.head_count_kv", "number of key-value heads"},
                                                        {"attention.key_length", "head size"},
                                                        {"feed_forward_length", "feed-forward size"},
                                                        {"context_length", "context length"},
                                                        {"rope.dimension_count", "rotary size"}};
    for (const auto& size : sizes)
        for (const int64_t absurd : {int64_t(1) << 40, std::numeric_limits<int64_t>::max()}) {
            std::vector<std::pair<std::string, Json>> keys{{"llama.attention.key_length", Json(8)},
                                                           {"llama.attention.value_length", Json()}};
            keys.emplace_back(str("llama.", size.key), Json(absurd));
            if (std::string_view(size.key) == "attention.key_length")
                keys.emplace_back("llama.attention.value_length", Json(absurd));
            expect_error(error_of([&] { tiny::load(changed(file, keys)); }), str("the ", size.name, " is ", absurd));
        }
}

TEST(Load, AbsurdRotaryFactors) {
    const std::string file = gguf_file();
    const auto gguf = [&](const std::vector<std::pair<std::string, Json>>& keys) {
        return error_of([&] { tiny::load(changed(file, keys)); });
    };
    const auto hf = [&](const Json& scaling, const Json& theta = Json(10000.0)) {
        return error_of([&] {
            tiny::load(
                hf_folder(Json{}.set("rope_parameters", Json()).set("rope_scaling", scaling).set("rope_theta", theta)));
        });
    };
    const std::string scaling = "llama.rope.scaling.";
    for (const double absurd : {1e-30, 1e-4, 1e7, 1e30}) {
        expect_error(gguf({{scaling + "type", "linear"}, {scaling + "factor", absurd}}), "rotary scaling factor");
        expect_error(gguf({{"llama.rope.scale_linear", absurd}}), "rotary scaling factor");
        expect_error(gguf({{scaling + "attn_factor", absurd}}), "attn_factor");
        expect_error(
            gguf({{scaling + "type", "yarn"}, {scaling + "factor", 4.0}, {scaling + "yarn_attn_factor", absurd}}),
            "yarn_attn_factor");
        for (const char* kind : {"linear", "yarn"})
            expect_error(hf(Json{}.set("rope_type", kind).set("factor", absurd)), "rotary scaling factor");
        expect_error(hf(Json{}.set("rope_type", "yarn").set("factor", 4.0).set("attention_factor", absurd)),
                     "attention factor");
        expect_error(hf(Json{}
                            .set("rope_type", "llama3")
                            .set("factor", absurd)
                            .set("low_freq_factor", 1.0)
                            .set("high_freq_factor", 4.0)
                            .set("original_max_position_embeddings", 64)),
                     "rotary scaling factor");
    }
    for (const double base : {0.5, 1.0, 1e16, 1e300}) {
        expect_error(gguf({{"llama.rope.freq_base", base}}), "rotary base");
        if (base < 1e30) expect_error(hf(Json(), Json(base)), "rotary base");
    }
    expect_error(hf(Json{}
                        .set("rope_type", "llama3")
                        .set("factor", 8.0)
                        .set("low_freq_factor", 1.0)
                        .set("high_freq_factor", 1e9)
                        .set("original_max_position_embeddings", 64)),
                 "high frequency factor");
    expect_error(hf(Json{}.set("rope_type", "yarn").set("factor", 4.0).set("beta_fast", 1e9)), "beta_fast");
    for (const float divisor : {0.0f, -1.0f, 1e-30f, 1e38f, std::numeric_limits<float>::quiet_NaN()})
        expect_error(error_of([&] {
                         check_frequencies(std::vector<float>{1.0f, 0.1f / divisor}, "test");
                     }),
                     "rotary frequency");
    for (const double sound : {1.0, 40.0, 128.0})
        EXPECT_EQ(gguf({{scaling + "type", "linear"}, {scaling + "factor", sound}}), "no error");
}

TEST(Load, DynamicScalingIsSaid) {
    const auto notes = [](const char* kind) {
        return describe(
                   *tiny::load(hf_folder(Json{}
                                             .set("rope_parameters", Json())
                                             .set("rope_scaling", Json{}.set("rope_type", kind).set("factor", 2.0)))))
            .notes;
    };
    ASSERT_EQ(notes("dynamic").size(), 1u);
    expect_error(notes("dynamic")[0], "\"dynamic\", which changes nothing up to 128 tokens");
    EXPECT_TRUE(notes("linear").empty());
}

// ---- vocabularies

Json words(std::initializer_list<const char*> list) {
    Json::Array out;
    for (const char* w : list) out.push_back(Json(w));
    return Json(std::move(out));
}

struct Keys { bool merges = true, pre = true, types = true, scores = true; };

std::string vocabulary(const std::string& kind, const Keys& keys, int64_t eot = -1) {
    GgufWriter w;
    const bool spm = kind == "llama";
    w.set("general.architecture", Key::string, "llama");
    w.set("tokenizer.ggml.model", Key::string, kind);
    if (keys.pre) w.set("tokenizer.ggml.pre", Key::string, "default");
    w.set_array("tokenizer.ggml.tokens", Key::string, words({"<unk>", "<s>", "</s>", "a", "b", "ab"}).array());
    if (keys.types)
        w.set_array("tokenizer.ggml.token_type", Key::i32, {Json(2), Json(3), Json(3), Json(1), Json(1), Json(1)});
    if (spm && keys.scores)
        w.set_array("tokenizer.ggml.scores", Key::f32, {Json(0), Json(0), Json(0), Json(-2), Json(-2), Json(-1)});
    if (!spm && keys.merges) w.set_array("tokenizer.ggml.merges", Key::string, words({"a b"}).array());
    w.set("tokenizer.ggml.eos_token_id", Key::u32, Json(2));
    if (eot >= 0) w.set("tokenizer.ggml.eot_token_id", Key::u32, Json(eot));
    const std::string path = temporary("vocabulary.gguf");
    w.write(path);
    return path;
}

TEST(LoadVocabulary, MissingPartsOfGgufAreSaidOrRefused) {
    for (const char* kind : {"gpt2", "llama"}) {
        const auto whole = load_tokenizer(vocabulary(kind, {}));
        EXPECT_TRUE(whole->notes.empty()) << kind;
        const auto untyped = load_tokenizer(vocabulary(kind, {.types = false}));
        ASSERT_EQ(untyped->notes.size(), 1u) << kind;
        expect_error(untyped->notes[0], "tokenizer.ggml.token_type");
    }
    const auto no_pre = load_tokenizer(vocabulary("gpt2", {.pre = false}));
    ASSERT_EQ(no_pre->notes.size(), 1u);
    expect_error(no_pre->notes[0], "tokenizer.ggml.pre");
    EXPECT_TRUE(load_tokenizer(vocabulary("llama", {.pre = false}))->notes.empty());   // not used there
    const auto no_scores = load_tokenizer(vocabulary("llama", {.scores = false}));
    ASSERT_EQ(no_scores->notes.size(), 1u);
    expect_error(no_scores->notes[0], "tokenizer.ggml.scores");
    expect_error(error_of([] { load_tokenizer(vocabulary("gpt2", {.merges = false})); }),
                 "tokenizer.ggml.merges is missing or empty");
}

const char* const tokenizer_json =
    R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": [{"id": 3, "content": "<end>", "special": true, "normalized": false}]})";

std::string tokenizer_folder(const std::vector<std::pair<std::string, std::string>>& files) {
    const std::string folder = temporary("tokenizer");
    std::filesystem::create_directory(folder);
    write_file_atomic(folder + "/tokenizer.json", tokenizer_json);
    for (const auto& [name, text] : files) write_file_atomic(folder + "/" + name, text);
    return folder;
}

TEST(LoadVocabulary, EndsOfTextMustExist) {
    using Files = std::vector<std::pair<std::string, std::string>>;
    const auto ends = [](const Files& files) { return load_tokenizer(tokenizer_folder(files))->end_of_reply; };
    EXPECT_EQ(ends({{"generation_config.json", R"({"eos_token_id": [3, 2]})"}}), (std::vector<Token>{3, 2}));
    EXPECT_EQ(ends({{"generation_config.json", R"({"eos_token_id": -1})"}}), std::vector<Token>{});
    EXPECT_EQ(ends({{"config.json", R"({"eos_token_id": 2})"}}), std::vector<Token>{2});
    // which comes first
    EXPECT_EQ(ends({{"config.json", R"({"eos_token_id": 2})"}, {"generation_config.json", R"({"eos_token_id": 3})"}}),
              std::vector<Token>{3});
    const auto refused = [&](const Files& files, const char* part) {
        expect_error(error_of([&] { ends(files); }), part);
    };
    for (const char* file : {"generation_config.json", "config.json"}) {
        refused({{file, R"({"eos_token_id": 4})"}}, "token 4 is said to end a text, the vocabulary has 4 tokens");
        refused({{file, R"({"eos_token_id": [3, 2147483647]})"}}, "said to end a text");
        refused({{file, R"({"eos_token_id": 2147483648})"}}, "expected a token");
        refused({{file, R"({"eos_token_id": -2})"}}, "expected a token");
    }
    refused({{"tokenizer_config.json", R"({"eos_token": "</s>"})"}}, "not in the vocabulary");
    for (const char* kind : {"gpt2", "llama"})
        for (const int64_t id : {int64_t(6), int64_t(4000000000)})
            expect_error(error_of([&] { load_tokenizer(vocabulary(kind, {}, id)); }), "there are 6 tokens");
    auto model = tiny::make({.vocabulary = 3});        // the vocabulary has the token, the embedding has no row for it
    model->tokenizer = load_tokenizer(tokenizer_folder({{"tokenizer_config.json", R"({"eos_token": "<end>"})"}}));
    expect_error(error_of([&] { check_text(*model); }), "outside the model's vocabulary of 3");
}

}  // namespace load_test
