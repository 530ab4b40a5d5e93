// files_test.cpp - models through their files: saved and loaded again bit for bit, NF4 against a plain computation,
// configurations that lie.
#include "src/base/access.h"
#include "src/model/model.h"

#include "src/format/gguf.h"
#include "src/format/safetensors.h"
#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace files_test {

using namespace qlora;

const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8, 14, 30};

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_files_" + name;
    std::filesystem::remove_all(path);
    return path;
}

TEST(ModelFiles, EveryFamilySavesAndLoadsBitForBit) {
    for (const std::string& family : tiny::every_family())
        for (const bool tied : {false, true}) {
            const auto model = tiny::make(
                {.family = family, .tied = tied, .adjacent = family_named(family)->adjacent_pairs});
            const std::string path = temporary("family.gguf");
            save_gguf_model(*model, path);
            const auto again = tiny::load(path);
            EXPECT_EQ(again->config.family, family);
            EXPECT_EQ(again->config.tied, model->config.tied);
            EXPECT_EQ(again->config.adjacent_pairs, model->config.adjacent_pairs);
            EXPECT_EQ(again->config.inverse_frequencies, model->config.inverse_frequencies);
            EXPECT_EQ(tiny::logits(again, nullptr, ids), tiny::logits(model, nullptr, ids));
            EXPECT_EQ(describe(*again).parameters, describe(*model).parameters);
        }
}

// Hugging Face row order becomes GGUF's: other files, the same function.
TEST(ModelFiles, RowsArePermutedForGguf) {
    const auto model = tiny::make({});
    const std::string path = temporary("permuted.gguf");
    save_gguf_model(*model, path);
    const auto again = tiny::load(path);
    EXPECT_TRUE(again->config.adjacent_pairs);
    const std::vector<float> a = tiny::logits(again, nullptr, ids), b = tiny::logits(model, nullptr, ids);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
    EXPECT_NE(again->at(Module::q_proj, 0)->decoded(), model->at(Module::q_proj, 0)->decoded());
}

class Quantized : public testing::TestWithParam<std::tuple<DType, bool, const char*>> {};

TEST_P(Quantized, SavesAndLoadsBitForBit) {
    const auto& [type, double_quant, name] = GetParam();
    const std::string source = data_path(std::string("model/stories260K/") + name);
    if (!exists(source)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
    const auto model = tiny::load(source, type, double_quant);
    const std::string path = temporary("quantized.gguf");
    save_gguf_model(*model, path);
    const auto again = tiny::load(path);
    for (size_t i = 0; i < model->layers.size(); ++i)
        for (int m = 0; m < module_count; ++m) {
            const Weight &a = *model->at(Module(m), i), &b = *again->at(Module(m), i);
            ASSERT_EQ(a.dtype, b.dtype);
            ASSERT_EQ(a.shape, b.shape);
            ASSERT_EQ(std::memcmp(a.data, b.data, size_t(a.elements() / 2)), 0);
            ASSERT_EQ(a.decoded(), b.decoded());
        }
    EXPECT_EQ(tiny::logits(again, nullptr, ids), tiny::logits(model, nullptr, ids));
    EXPECT_EQ(describe(*again).weights, describe(*model).weights);
    const std::string twice = temporary("twice.gguf");
    save_gguf_model(*again, twice);
    EXPECT_TRUE(read_file(twice) == read_file(path));  // not EXPECT_EQ: it would print the files
    // What is 4-bit already is not quantized again.
    EXPECT_EQ(tiny::logits(tiny::load(path, type), nullptr, ids), tiny::logits(model, nullptr, ids));
}
INSTANTIATE_TEST_SUITE_P(ModelFiles, Quantized,
                         testing::Combine(testing::Values(DType::nf4, DType::fp4), testing::Bool(),
                                          testing::Values("stories260K.gguf", "hf")));

TEST(ModelFiles, MetadataIsCopied) {
    const std::string source = data_path("model/stories260K/stories260K.gguf");
    if (!exists(source)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
    const std::string path = temporary("copy.gguf");
    save_gguf_model(*tiny::load(source), path);
    const auto a = Gguf::open(source), b = Gguf::open(path);
    ASSERT_EQ(a->pairs().size(), b->pairs().size());
    for (const GgufPair& p : a->pairs()) EXPECT_EQ(b->bytes_of_pair(*b->pair(p.key)), a->bytes_of_pair(p)) << p.key;
    EXPECT_EQ(tiny::logits(tiny::load(path), nullptr, ids), tiny::logits(tiny::load(source), nullptr, ids));
}

// Scores of the quantized model against the same graph on decoded floats, and against a plain NumPy computation
// (tools/make_model_golden.py).
TEST(ModelFiles, Nf4MatchesNumpy) {
    const std::string source = data_path("model/stories260K/stories260K.gguf"),
                      golden = golden_path("model/stories_nf4.json");
    if (!exists(source)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
    const Json j = Json::parse(read_file(golden), golden);
    Tokens tokens;
    for (const Json& v : j.find("ids")->array()) tokens.push_back(Token(v.integer()));
    for (const bool twice : {false, true}) {
        const auto model = tiny::load(source, DType::nf4, twice);
        const std::vector<float> logits = tiny::logits(model, nullptr, tokens);
        const Json::Array& rows = j.find(twice ? "double" : "single")->array();
        ASSERT_EQ(rows.size(), tokens.size());
        for (size_t t = 0; t < tokens.size(); ++t)
            for (size_t i = 0; i < 16; ++i)
                EXPECT_NEAR(logits[t * 512 + i * 32], rows[t].array()[i].number(), 1e-4) << t << ", " << i;
        // The 4-bit products against the same model with its weights decoded to floats.
        auto decoded = std::make_shared<ModelImpl>(*model);
        for_each_weight(*decoded, [](const Row&, WeightPtr& w) {
            w = std::make_shared<const Weight>(dense_weight(w->name, w->shape, w->decoded()));
        });
        const std::vector<float> dense = tiny::logits(decoded, nullptr, tokens);
        for (size_t i = 0; i < dense.size(); ++i) ASSERT_NEAR(logits[i], dense[i], 1e-4);
    }
}

// A fake Llama 3: divisors of the frequencies in rope_freqs.weight, and the same by config.json's formula.
TEST(ModelFiles, Llama3RopeFactors) {
    auto model = tiny::make({.adjacent = true});
    RopeScaling s;
    s.kind = RopeScaling::Kind::llama3;
    s.factor = 8; s.original_context = 64; s.low = 1; s.high = 4;
    set_frequencies(model->config, 500, s, "test");
    // By hand: 500^(-2i/8) = 1, 0.21147, 0.04472, 0.009457; wavelengths 6.28, 29.7, 140.5, 664; kept below 16, divided
    // above 64.
    const std::vector<float>& f = model->config.inverse_frequencies;
    ASSERT_EQ(f.size(), 4u);
    EXPECT_FLOAT_EQ(f[0], 1);
    const double w1 = 64 * 0.2114742527 / 6.283185307, smooth = (w1 - 1) / 3;
    EXPECT_NEAR(f[1], 0.2114742527 * ((1 - smooth) / 8 + smooth), 1e-7);
    EXPECT_NEAR(f[2], 0.0447213595 / 8, 1e-8);
    EXPECT_NEAR(f[3], 0.0094574160 / 8, 1e-9);
    const std::string path = temporary("rope.gguf");
    save_gguf_model(*model, path);
    ASSERT_NE(Gguf::open(path)->tensor("rope_freqs.weight"), nullptr);
    const auto again = tiny::load(path);
    EXPECT_EQ(again->config.inverse_frequencies, f);
    EXPECT_NE(tiny::logits(again, nullptr, ids), tiny::logits(tiny::make({.adjacent = true}), nullptr, ids));
}

TEST(ModelFiles, YarnAndLinearFrequencies) {
    Config c;
    c.rotated = 8;
    RopeScaling s;
    s.kind = RopeScaling::Kind::linear;
    s.factor = 4;
    set_frequencies(c, 10000, s, "test");
    EXPECT_FLOAT_EQ(c.inverse_frequencies[1], 0.1f / 4);
    EXPECT_EQ(c.rope_magnitude, 1);
    s.kind = RopeScaling::Kind::yarn;
    s.original_context = 2048;
    set_frequencies(c, 10000, s, "test");
    // transformers' _compute_yarn_parameters(dim 8, base 10000, factor 4, original 2048, beta 32 and 1).
    const double expected[] = {1, 0.1, 0.00625, 0.00025};
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(c.inverse_frequencies[i], expected[i], 1e-6 * expected[i]);
    EXPECT_NEAR(c.rope_magnitude, 0.1 * std::log(4.0) + 1, 1e-6);
}

// llama.cpp multiplies yarn's own factor by the one in the file; ours is the float that was held.
TEST(ModelFiles, MagnitudeOfYarnBitForBit) {
    auto model = tiny::make({.adjacent = true});
    const std::string path = temporary("magnitude.gguf");
    for (const double factor : {2.0, 4.0, 8.0, 40.0})
        for (const double magnitude : {0.0, 0.7, 0.9, 1.0, 1.3, 1.37}) {
            RopeScaling s;
            s.kind = RopeScaling::Kind::yarn;
            s.factor = factor; s.original_context = 64; s.attention_factor = magnitude;
            set_frequencies(model->config, 500, s, "test");
            save_gguf_model(*model, path);
            EXPECT_EQ(tiny::load(path)->config.rope_magnitude, model->config.rope_magnitude) << factor << magnitude;
        }
}

// ---- configurations that lie

Json good_config() {
    return Json::parse(
        R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":40,"max_position_embeddings":128,"rms_norm_eps":1e-5})",
        "config");
}

TEST(HfConfig, ReadsBothDialects) {
    Json j = good_config();
    Config c = hf_config(j, "c");
    EXPECT_EQ(c.head_dim, 8);
    EXPECT_FALSE(c.tied);
    EXPECT_FLOAT_EQ(c.inverse_frequencies[1], 0.1f);
    j.set("rope_theta", Json(500.0))
        .set(
            "rope_scaling",
            Json::parse(
                R"({"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64})",
                "r"));
    const std::vector<float> v4 = hf_config(j, "c").inverse_frequencies;
    Json k = good_config();
    k.set(
        "rope_parameters",
        Json::parse(
            R"({"rope_type":"llama3","rope_theta":500.0,"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64})",
            "r"));
    EXPECT_EQ(hf_config(k, "c").inverse_frequencies, v4);
    EXPECT_NEAR(v4[3], 0.0094574160 / 8, 1e-9);
    j = good_config();
    j.set("model_type", Json("mistral")).set("architectures", Json::parse("[\"MistralForCausalLM\"]", "a"));
    EXPECT_EQ(hf_config(j, "c").window, 4096);
    j.set("sliding_window", Json());
    EXPECT_EQ(hf_config(j, "c").window, 0);
    j = good_config();
    j.set("model_type", Json("qwen2"))
        .set("architectures", Json::parse("[\"Qwen2ForCausalLM\"]", "a"))
        .set("use_sliding_window", Json(true))
        .set("sliding_window", Json(16))
        .set("max_window_layers", Json(1));
    EXPECT_EQ(hf_config(j, "c").window, 16);
    EXPECT_EQ(hf_config(j, "c").window_from_layer, 1);
}

TEST(HfConfig, EveryLieIsNamed) {
    const struct { const char *key, *expected; Json value;
    } table[] = {
        {"num_attention_heads", "num_attention_heads", Json(0)},
        {"num_attention_heads", "multiple", Json(5)},
        {"num_attention_heads", "num_attention_heads", Json("4")},
        {"num_key_value_heads", "key-value heads", Json(3)},
        {"num_key_value_heads", "key-value heads", Json(8)},
        {"num_key_value_heads", "key-value heads", Json(-2)},
        {"num_hidden_layers", "num_hidden_layers", Json(int64_t(1000000000))},
        {"num_hidden_layers", "layers", Json(0)},
        {"num_hidden_layers", "num_hidden_layers", Json(-1)},
        {"vocab_size", "vocabulary", Json(int64_t(1) << 31)},
        {"vocab_size", "vocabulary", Json(0)},
        {"hidden_size", "hidden_size", Json(int64_t(1) << 40)},
        {"hidden_size", "hidden_size", Json(0)},
        {"head_dim", "head size", Json(0)},
        {"head_dim", "even", Json(7)},
        {"intermediate_size", "feed-forward", Json(-48)},
        {"max_position_embeddings", "context", Json(0)},
        {"rms_norm_eps", "epsilon", Json(0.0)},
        {"rms_norm_eps", "epsilon", Json(-1e-5)},
        {"rms_norm_eps", "rms_norm_eps", Json("x")},
        {"rope_theta", "base", Json(0.0)},
        {"rope_theta", "base", Json(-1.0)},
        {"rope_scaling", "factor", Json(Json::Object{{"type", "linear"}, {"factor", 0.0}})},
        {"rope_scaling", "ntk", Json(Json::Object{{"type", "ntk"}})},
        {"rope_scaling", "object", Json("linear")},
        {"rope_scaling", "low and high",
         Json(Json::Object{{"rope_type", "llama3"},
                           {"factor", 8.0},
                           {"low_freq_factor", 4.0},
                           {"high_freq_factor", 4.0},
                           {"original_max_position_embeddings", 64}})},
        {"rope_scaling", "factor is missing", Json(Json::Object{{"type", "linear"}})},
        {"rope_scaling", "low_freq_factor is missing",
         Json(Json::Object{{"rope_type", "llama3"}, {"factor", 8.0}, {"original_max_position_embeddings", 64}})},
        {"partial_rotary_factor", "partial_rotary", Json(2.0)},
        {"hidden_act", "hidden_act", Json("relu")},
        {"model_type", "supported families", Json("mamba")},
        {"model_type", "model_type", Json(3)},
        {"architectures", "LlamaForSomething", Json(Json::Array{"LlamaForSomething"})},
        {"tie_word_embeddings", "tie_word_embeddings", Json("yes")}};
    for (const auto& row : table) {
        Json j = good_config();
        j.set(row.key, row.value);
        std::string error = "accepted";
        try { hf_config(j, "config.json"); } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find(row.expected), std::string::npos) << row.key << ": " << error;
    }
    EXPECT_THROW(hf_config(Json(3), "c"), Error);
}

void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

// A Hugging Face folder of a tiny model, whole or in two shards.
std::string folder_of(const ModelImpl& m, const std::string& name, bool shards = false) {
    const std::string folder = temporary(name);
    std::filesystem::create_directory(folder);
    write_text(folder + "/config.json", good_config().dump());
    SafeTensorsWriter parts[2];
    Json map{Json::Object{}};
    auto add = [&](int part, const std::string& tensor, const WeightPtr& w) {
        parts[shards ? part : 0].add(tensor, w->shape, w->decoded());
        map.set(tensor, Json(str("model-0000", shards ? part + 1 : 1, "-of-00002.safetensors")));
    };
    add(0, "model.embed_tokens.weight", m.at(Slot::embedding));
    add(0, "model.norm.weight", m.at(Slot::final_norm));
    add(1, "lm_head.weight", m.at(Slot::head));
    for (size_t i = 0; i < m.layers.size(); ++i) {
        add(int(i), str("model.layers.", i, ".input_layernorm.weight"), m.at(Slot::attention_norm, i));
        add(int(i), str("model.layers.", i, ".post_attention_layernorm.weight"), m.at(Slot::feed_forward_norm, i));
        for (int k = 0; k < module_count; ++k)
            add(int(i), hf_name(m.config, int64_t(i), Module(k)) + ".weight", m.at(Module(k), i));
    }
    if (!shards) parts[0].write(folder + "/model.safetensors");
    for (int p = 0; shards && p < 2; ++p) parts[p].write(folder + str("/model-0000", p + 1, "-of-00002.safetensors"));
    if (shards) write_text(folder + "/model.safetensors.index.json", Json(Json::Object{{"weight_map", map}}).dump());
    return folder;
}

TEST(HfFolder, WholeAndInShards) {
    const auto model = tiny::make({});
    const std::vector<float> expected = tiny::logits(model, nullptr, ids);
    EXPECT_EQ(tiny::logits(tiny::load(folder_of(*model, "whole")), nullptr, ids), expected);
    const std::string folder = folder_of(*model, "shards", true);
    EXPECT_EQ(tiny::logits(tiny::load(folder), nullptr, ids), expected);
    const std::string index = folder + "/model.safetensors.index.json", good = read_file(index);
    for (const char* name : {"../model-00001-of-00002.safetensors", "/etc/passwd", "C:\\\\x", "a/b", "..", "",
                             "missing.safetensors", "model-00002-of-00002.safetensors"}) {
        Json j = Json::parse(good, index);
        Json map = *j.find("weight_map");
        map.set("model.norm.weight", Json(name));
        j.set("weight_map", map);
        write_text(index, j.dump());
        EXPECT_THROW(tiny::load(folder), Error) << name;
    }
    for (const char* text : {"{}", "[]", "{\"weight_map\":3}", "{\"weight_map\":{\"a\":1}}", ""}) {
        write_text(index, text);
        EXPECT_THROW(tiny::load(folder), Error) << text;
    }
}

TEST(HfFolder, TensorsMustAgreeWithTheConfiguration) {
    const auto model = tiny::make({});
    const std::string folder = folder_of(*model, "lies"), config = folder + "/config.json";
    const struct {
        const char* key;
        Json value;
    } table[] = {{"hidden_size", Json(64)},
                 {"vocab_size", Json(41)},
                 {"num_hidden_layers", Json(3)},
                 {"intermediate_size", Json(50)},
                 {"num_attention_heads", Json(8)},
                 {"num_key_value_heads", Json(4)},
                 {"head_dim", Json(16)},
                 {"attention_bias", Json(true)},
                 {"mlp_bias", Json(true)},
                 {"model_type", Json("qwen2")},
                 {"quantization_config", Json(Json::Object{{"quant_method", "gptq"}})},
                 {"quantization_config", Json(Json::Object{{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}})}};
    for (const auto& row : table) {
        Json j = good_config();
        j.set(row.key, row.value);
        write_text(config, j.dump());
        EXPECT_THROW(tiny::load(folder), Error) << row.key;
    }
    write_text(config, good_config().dump());
    EXPECT_NO_THROW(tiny::load(folder));
    EXPECT_THROW(tiny::load(folder, DType::q4_0), Error);
    LoadOptions options{.backend = handle_of<Backend>(tiny::backend()),
                        .on_progress = [](float fraction) { return fraction < 0.5f; }};
    try { load_hf_model(folder, options); FAIL(); } catch (const Error& e) { EXPECT_EQ(e.code, Errc::cancelled); }
}

// A GGUF model cut off or changed at any place is an error or a model; never a crash.
TEST(ModelFiles, TruncatedAndFlippedGguf) {
    const auto model = tiny::make(
        {.layers = 1, .hidden = 8, .heads = 1, .kv_heads = 1, .feed_forward = 8, .vocabulary = 8});
    const std::string path = temporary("whole.gguf"), broken = temporary("broken.gguf");
    save_gguf_model(*model, path);
    const std::string bytes = read_file(path);
    auto attempt = [&](const std::string& content) {
        write_text(broken, content);
        try { tiny::load(broken); } catch (const Error&) { return false; }
        return true;
    };
    EXPECT_TRUE(attempt(bytes));
    for (size_t n = 0; n + 64 < bytes.size(); n += 13) EXPECT_FALSE(attempt(bytes.substr(0, n))) << n;
    for (size_t n = 0; n < bytes.size() / 2; n += 3) {
        std::string flipped = bytes;
        flipped[n] = char(flipped[n] ^ (1 << (n % 8)));
        attempt(flipped);
    }
}

TEST(ModelFiles, OtherFilesAreRefusedByName) {
    const std::string other = temporary("other.gguf");
    GgufWriter out;
    out.set("general.architecture", GgufWriter::Type::string, Json("mamba"));
    out.write(other);
    try {
        tiny::load(other);
        FAIL();
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("supported families"), std::string::npos) << e.what();
    }
    const std::string text = data_path("tokenizer/smollm2");
    if (!exists(text)) GTEST_SKIP() << "needs ../shared/data/tokenizer";
    EXPECT_THROW(tiny::load(text), Error);
}

}  // namespace files_test
