// family_test.cpp - every family against transformers, adapters against peft (tools/make_family_golden.py wrote the
// references).
#include "src/format/safetensors.h"
#include "src/model/hf_model.h"
#include "src/model/lora_impl.h"
#include "src/run/merge.h"
#include "tests/model/reference.h"

#include <cmath>
#include <filesystem>

namespace family_test {

using namespace qlora;
using reference::expect_rows, reference::folder_of, reference::golden, reference::reference_ids;

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, ScoresMatchTransformers) {
    const Json families = golden("families.json");
    const Json& reference = *families.find("cases")->find(GetParam());
    const std::string folder = folder_of(GetParam(), reference);
    const auto model = tiny::load(folder);
    expect_rows(tiny::logits(model, nullptr, reference_ids()), *reference.find("logits"));
    // Through a GGUF file: rows permuted, frequencies as divisors, the same function.
    const std::string path = folder + "/model.gguf";
    save_gguf_model(*model, path);
    const auto again = tiny::load(path);
    expect_rows(tiny::logits(again, nullptr, reference_ids()), *reference.find("logits"));
    EXPECT_EQ(again->config.inverse_frequencies, model->config.inverse_frequencies);
    EXPECT_EQ(again->config.family, model->config.family);
}
INSTANTIATE_TEST_SUITE_P(Model, Families,
                         testing::Values("llama", "llama_linear", "llama_llama3", "llama_yarn", "llama_bias", "mistral",
                                         "qwen2", "qwen3", "llama_odd", "mistral_odd", "qwen2_odd", "qwen3_odd",
                                         "gemma2", "gemma2_odd", "gemma2_published", "qwen2_types", "qwen3_types",
                                         "starcoder2", "starcoder2_odd", "olmo", "deci", "gemma", "gemma_odd",
                                         "gemma3", "gemma3_odd", "smollm3", "granite", "granite_odd", "olmo2", "olmo3",
                                         "olmo3_odd", "ministral3", "ministral3_odd", "llama_mscale", "llama_whole",
                                         "llama_dynamic", "phi3", "phi3_odd", "phi3_long", "gpt2", "gpt_bigcode",
                                         "gpt_bigcode_odd", "gpt_neox", "granitemoehybrid", "hf_olmo", "hf_olmo_odd"),
                         [](const auto& of) { return std::string(of.param); });

// What llama.cpp cannot say of a model is refused in a file that it would read, and kept in one that only we read.
class FolderFamilies : public testing::TestWithParam<const char*> {};

TEST_P(FolderFamilies, ScoresMatchTransformers) {
    const Json families = golden("families.json");
    const Json& reference = *families.find("cases")->find(GetParam());
    const auto model = tiny::load(folder_of(GetParam(), reference));
    expect_rows(tiny::logits(model, nullptr, reference_ids()), *reference.find("logits"));
    EXPECT_THROW(save_gguf_model(*model, testing::TempDir() + "qlora_family_refused.gguf"), Error);
}
INSTANTIATE_TEST_SUITE_P(Model, FolderFamilies,
                         testing::Values("starcoder2_plain", "olmo_odd", "gemma_silu", "gemma3_bias", "smollm3_odd",
                                         "olmo2_odd", "llama_gelu", "gpt2_odd", "gpt_neox_odd",
                                         "granitemoehybrid_nope", "olmo3_whole"),
                         [](const auto& of) { return std::string(of.param); });

// What a case is about must show in its scores, or the comparison above would pass without it.
TEST(FamilyCases, EachVariantMatters) {
    const Json families = golden("families.json");
    const Json& cases = *families.find("cases");
    const std::vector<float> plain = tiny::logits(tiny::load(folder_of("plain", *cases.find("llama"))), nullptr,
                                                  reference_ids());
    for (const char* name : {"llama_linear", "llama_llama3", "llama_yarn", "llama_bias", "llama_mscale", "llama_whole",
                             "llama_gelu"})
        EXPECT_GT(reference::difference(plain, *cases.find(name)->find("logits")), 1e-3) << name;
    for (const char* name : {"mistral", "qwen2", "mistral_odd", "qwen3_odd", "qwen2_types", "qwen3_types",
                             "starcoder2_odd"}) {
        Json open = *cases.find(name), config = *open.find("config");
        config.set("sliding_window", Json()).set("use_sliding_window", Json(false)).set("layer_types", Json());
        open.set("config", config);
        const std::vector<float> unlimited = tiny::logits(tiny::load(folder_of("unlimited", open)), nullptr,
                                                          reference_ids());
        EXPECT_GT(reference::difference(unlimited, *open.find("logits")), 1e-3) << name;
    }
}

// What llama.cpp will not do with a file is said of the file, and of no other.
TEST(FamilyCases, AWindowThatLlamaCppIgnoresIsSaid) {
    const Json families = golden("families.json");
    for (const auto& [name, ignored] : {std::pair{"mistral", true}, {"qwen2", true}, {"starcoder2_odd", true},
                                        {"phi3", true}, {"gemma3", false}, {"olmo3", false}, {"llama", false}}) {
        const auto model = tiny::load(folder_of(name, *families.find("cases")->find(name)));
        EXPECT_TRUE(describe(*model).notes.empty()) << name;
        const std::string path = testing::TempDir() + "qlora_family_windowed.gguf";
        save_gguf_model(*model, path);
        const std::vector<std::string> notes = describe(*tiny::load(path)).notes;
        ASSERT_EQ(notes.size(), ignored ? 1u : 0u) << name;
        for (const std::string& note : notes)
            EXPECT_NE(note.find(str(model->config.window, " keys; llama.cpp takes no notice")), note.npos) << note;
        save_gguf_model(*convert_model(*model, DType::nf4, true), path);
        EXPECT_TRUE(describe(*tiny::load(path)).notes.empty()) << name;
    }
}

// Yarn's whole pairs, of all layers, are said beside the objects of two kinds; inside of one nobody follows them.
TEST(FamilyCases, TruncateIsSaidOnceForAllLayers) {
    const Json families = golden("families.json");
    Json whole = *families.find("cases")->find("olmo3_whole"), config = *whole.find("config");
    Json rope = *config.find("rope_parameters"), full = *rope.find("full_attention");
    EXPECT_FALSE(rope.find("truncate")->boolean());
    const auto model = tiny::load(folder_of("whole", whole));
    EXPECT_EQ(hf_config(hf_config_of(*model), "saved").inverse_frequencies, model->config.inverse_frequencies);
    whole.set("config", config.set("rope_parameters", rope.set("truncate", true)));
    const std::vector<float> cut = tiny::logits(tiny::load(folder_of("cut", whole)), nullptr, reference_ids());
    EXPECT_GT(reference::difference(cut, *whole.find("logits")), 1e-3);
    rope.set("truncate", Json()).set("full_attention", full.set("truncate", false));
    config.set("rope_parameters", rope);
    std::string error = "read";
    try { hf_config(config, "config.json"); } catch (const Error& e) { error = e.what(); }
    EXPECT_NE(error.find("full_attention: truncate is another than beside full_attention"), error.npos) << error;
}

// The goldens have rope_parameters, as version 5 of transformers writes them; version 4 had rope_theta beside
// rope_scaling.
TEST(FamilyCases, BothDialectsOfTheConfiguration) {
    const Json families = golden("families.json");
    for (const auto& [name, reference] : families.find("cases")->object()) {
        // which nothing but layer_types can say, or truncate beside two kinds; a class of version 5 only
        if (name.ends_with("_types") || name == "olmo3_whole" || name.starts_with("ministral3")) continue;
        const Json& config = *reference.find("config");
        const Json* rope = config.find("rope_parameters");
        if (!rope) continue;                           // learned positions
        Json older{Json::Object{}}, scaling{Json::Object{}};
        if (const Json* sliding = rope->find("sliding_attention")) {
            older.set("rope_local_base_freq", *sliding->find("rope_theta"));
            rope = rope->find("full_attention");
        }
        for (const auto& [key, value] : config.object())
            if (key != "rope_parameters" && (key != "layer_types" || name.starts_with("granite")))
                older.set(key == "dtype" ? "torch_dtype" : key, value);
        for (const auto& [key, value] : rope->object()) {
            if (key == "rope_theta" || key == "partial_rotary_factor") older.set(key, value);
            else scaling.set(name == "llama_linear" && key == "rope_type" ? "type" : key, value);
        }
        const bool scaled = rope->find("rope_type")->string() != "default";
        older.set("rope_scaling", scaled ? scaling : Json());
        const Config a = hf_config(config, "newer"), b = hf_config(older, "older");
        EXPECT_EQ(a.inverse_frequencies, b.inverse_frequencies) << name;
        EXPECT_EQ(a.rope_magnitude, b.rope_magnitude) << name;
        EXPECT_EQ(a.rope_theta, b.rope_theta) << name;
        EXPECT_EQ(a.sliding_frequencies, b.sliding_frequencies) << name;
        EXPECT_EQ(a.window, b.window) << name;
        EXPECT_EQ(a.window_from_layer, b.window_from_layer) << name;
        EXPECT_EQ(a.head_dim, b.head_dim) << name;
        EXPECT_EQ(a.tied, b.tied) << name;
    }
}

TEST(PeftReference, RanksAndScales) {
    const auto model = tiny::load(folder_of("llama_ranks", *golden("families.json").find("cases")->find("llama")));
    const auto lora = load_lora(model, golden_path("model/peft"));
    EXPECT_EQ(lora->find(1, Module::q_proj)->rank, 2);
    EXPECT_FLOAT_EQ(lora->find(0, Module::q_proj)->scale, float(6 / std::sqrt(3.0)));
}

class PeftGradients : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(PeftGradients, ScoresLossAndGradients) {
    const auto [family, name] = GetParam();
    const Json families = golden("families.json"), reference = golden(str(name, ".json"));
    const auto model = tiny::load(folder_of(str(family, "_peft"), *families.find("cases")->find(family)));
    const Tokens ids = reference_ids();
    const auto lora = load_lora(model, golden_path(str("model/", name)));
    expect_rows(tiny::logits(model, lora.get(), ids), *reference.find("logits"));
    const BufferRef buffer = model->backend->allocate(lora->parameters * 4);
    Decoder d(model, lora.get(),
              {.rows = int64_t(ids.size()),
               .output = DecoderSpec::Output::loss,
               .backward = true,
               .checkpoint = true,
               .gradients = buffer});
    d.run(lay_out(std::vector<Document>{{ids, {}}}, int64_t(ids.size())));
    double loss = 0;
    for (float v : d.nll()) loss += v;
    EXPECT_NEAR(loss, reference.find("loss")->number(), 1e-5 * loss);
    std::vector<float> g(size_t(lora->parameters));
    model->backend->download(*buffer, 0, g.data(), lora->parameters * 4);
    // In the order of a file, which fused layers have otherwise than the model.
    const auto gradients = copy_lora(*lora);
    set_lora_values(*gradients, g);
    const std::string in_files = testing::TempDir() + "qlora_family_gradients";
    save_lora_peft(*gradients, in_files);
    const auto file = SafeTensors::open(in_files + "/adapter_model.safetensors");
    EXPECT_GE(reference.find("gradients")->object().size(), 8u);       // A and B of four modules of layer 1
    for (const auto& [parameter, list] : reference.find("gradients")->object()) {
        const bool magnitude = parameter.ends_with("lora_magnitude_vector.weight");
        const SafeTensor* t = file->find(magnitude ? parameter.substr(0, parameter.rfind('.')) : parameter);
        ASSERT_NE(t, nullptr) << parameter;
        const std::vector<float> ours = file->floats(*t);
        ASSERT_EQ(ours.size(), list.array().size()) << parameter;
        double largest = 0;
        for (const Json& v : list.array()) largest = std::max(largest, std::fabs(v.number()));
        for (size_t i = 0; i < ours.size(); ++i)
            ASSERT_NEAR(ours[i], list.array()[i].number(), 1e-4 * largest) << parameter << " " << i;
    }
    // Saved and loaded again, it is the same adapter.
    const std::string again = testing::TempDir() + "qlora_family_peft_again";
    save_lora_peft(*lora, again);
    expect_rows(tiny::logits(model, load_lora(model, again).get(), ids), *reference.find("logits"));
}
INSTANTIATE_TEST_SUITE_P(Model, PeftGradients,
                         testing::Values(std::pair{"llama", "peft"}, std::pair{"gemma2", "peft_gemma2"},
                                         std::pair{"gemma", "peft_gemma"}, std::pair{"gemma3", "peft_gemma3"},
                                         std::pair{"smollm3", "peft_smollm3"}, std::pair{"granite", "peft_granite"},
                                         std::pair{"olmo2", "peft_olmo2"}, std::pair{"olmo3", "peft_olmo3"},
                                         std::pair{"ministral3", "peft_ministral3"}, std::pair{"phi3", "peft_phi3"},
                                         std::pair{"gpt2", "peft_gpt2"}, std::pair{"gpt_neox", "peft_gpt_neox"},
                                         std::pair{"granitemoehybrid", "peft_granitemoehybrid"}),
                         [](const auto& of) { return std::string(of.param.first); });

// What llama.cpp's files cannot say of Gemma 2 is refused, unless only this library reads the file.
TEST(FamilyCases, Gemma2BeyondLlamaCpp) {
    const Json families = golden("families.json");
    const Json& reference = *families.find("cases")->find("gemma2_uncapped");
    const auto model = tiny::load(folder_of("gemma2_uncapped", reference));
    expect_rows(tiny::logits(model, nullptr, reference_ids()), *reference.find("logits"));
    const std::string path = testing::TempDir() + "qlora_gemma2_uncapped.gguf";
    EXPECT_THROW(save_gguf_model(*model, path), Error);
    const auto coded = convert_model(*model, DType::nf4, true);
    save_gguf_model(*coded, path);
    const auto again = tiny::load(path);
    EXPECT_EQ(tiny::logits(again, nullptr, reference_ids()), tiny::logits(coded, nullptr, reference_ids()));
    EXPECT_EQ(again->config.attention_scale, model->config.attention_scale);
    // and back into a folder: transformers' fields, and the weights of norms as it holds them
    const std::string folder = testing::TempDir() + "qlora_gemma2_folder";
    std::filesystem::remove_all(folder);
    save_hf_model(*again, folder);
    EXPECT_EQ(tiny::logits(tiny::load(folder), nullptr, reference_ids()),
              tiny::logits(coded, nullptr, reference_ids()));
}

// Every field of Gemma 2 that can be wrong in a configuration.
TEST(FamilyCases, Gemma2RefusesWhatItDoesNotCompute) {
    const Json families = golden("families.json");
    const Json& good = *families.find("cases")->find("gemma2")->find("config");
    const struct { const char* key; Json value; const char* says; } table[] = {
        {"sliding_window", Json(0), "sliding window"},
        {"sliding_window", Json(), "sliding window"},
        {"query_pre_attn_scalar", Json(1e-30), "scale of attention"},
        {"query_pre_attn_scalar", Json(-1), "query_pre_attn_scalar"},
        {"attn_logit_softcapping", Json(-2.0), "soft cap of the attention"},
        {"final_logit_softcapping", Json(1e30), "soft cap of the logits"},
        {"hidden_activation", Json("relu"), "gelu_pytorch_tanh are"},
        {"use_bidirectional_attention", Json(true), "causal"},
        {"layer_types", Json(Json::Array(3, Json("linear_attention"))), "layer_types[0]"},
        {"layer_types", Json(Json::Array(2, Json("full_attention"))), "2 entries for 3 layers"}};
    for (const auto& row : table) {
        Json config = good;
        config.set(row.key, row.value);
        std::string error = "read";
        try { hf_config(config, "config.json"); } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find(row.says), std::string::npos) << row.key << ": " << error;
    }
}

// Files of GPT-2 as they were first published: without "transformer." before the names, with the masks of attention.
TEST(FamilyCases, Gpt2WithoutItsPrefixAndWithMasks) {
    const Json families = golden("families.json");
    const Json& reference = *families.find("cases")->find("gpt2");
    const std::string folder = folder_of("gpt2_bare", reference), path = folder + "/model.safetensors";
    {
        SafeTensorsWriter w;
        const auto file = SafeTensors::open(path);
        for (const SafeTensor& t : file->tensors())
            w.add(t.name.substr(t.name.find('.') + 1), t.shape, file->floats(t));
        w.add("h.1.attn.bias", {1, 1, 4, 4}, std::vector<float>(16, 1));
        w.write(path + ".new");
        std::filesystem::rename(path + ".new", path);
    }
    expect_rows(tiny::logits(tiny::load(folder), nullptr, reference_ids()), *reference.find("logits"));
}

// Documents of a packed row have the loss that they have alone, on either side of the original context of 8 tokens;
// in a cache a text turns by the length that its reader says.
TEST(FamilyCases, LongropeByDocument) {
    const Json families = golden("families.json");
    const Json& reference = *families.find("cases")->find("phi3_long");
    const auto model = tiny::load(folder_of("phi3_packed", reference));
    const Tokens ids = reference_ids();
    const std::span<const Token> all(ids);
    const auto nll = [&](const std::vector<Document>& documents, int64_t rows) {
        Decoder d(model, nullptr, {.rows = rows, .output = DecoderSpec::Output::loss});
        d.run(lay_out(documents, rows));
        return d.nll();
    };
    const std::vector<std::span<const Token>> texts{all.first(5), all, all.subspan(3, 8), all.first(9)};
    std::vector<Document> packed;
    std::vector<float> alone;
    for (const auto& text : texts) {
        packed.push_back({text, {}});
        const std::vector<float> own = nll({{text, {}}}, int64_t(text.size()));
        alone.insert(alone.end(), own.begin(), own.end());
    }
    const std::vector<float> together = nll(packed, int64_t(alone.size()) + 6);
    for (size_t i = 0; i < alone.size(); ++i) ASSERT_NEAR(together[i], alone[i], 1e-5) << i;
    const auto cached = [&](int64_t length) {          // scores of the first tokens
        const KvCache cache = make_cache(*model, 32, DType::f32);
        Decoder d(model, nullptr, {.rows = 6, .cache = &cache});
        DecoderBatch b;
        append_cached(b, all.first(6), 0, 0, length);
        d.run(b);
        return d.logits();
    };
    const std::vector<float> short_text = tiny::logits(model, nullptr, all.first(6)), in_8 = cached(8),
                             in_9 = cached(9);
    double most = 0;
    for (size_t i = 0; i < in_8.size(); ++i) {
        ASSERT_NEAR(in_8[i], short_text[i], 1e-4);
        most = std::max(most, std::fabs(double(in_9[i]) - short_text[i]));
    }
    EXPECT_GT(most, 1e-2) << "keys of a longer text turn by the other list";
    EXPECT_EQ(cached(0), in_8) << "a text that ends with its rows";
    EXPECT_FALSE(describe(*model).notes.empty());
}

// Where all layers slide no list says which; a window that llama.cpp has no key for is in our own files all the same.
TEST(FamilyCases, SmolLM3KeepsItsWindow) {
    const auto model = tiny::make({.family = "smollm3", .window = 3});
    model->config.turned.assign(2, 0);
    const std::string path = testing::TempDir() + "qlora_family_smollm3.gguf";
    EXPECT_THROW(save_gguf_model(*model, path), Error);
    const auto coded = convert_model(*model, DType::nf4, true);
    save_gguf_model(*coded, path);
    const auto again = tiny::load(path);
    EXPECT_EQ(again->config.window, 3);
    EXPECT_EQ(tiny::logits(again, nullptr, reference_ids()), tiny::logits(coded, nullptr, reference_ids()));
}

// A config.json of Ministral 3 has one original context, for frequencies and for queries.
TEST(FamilyCases, Ministral3HasOneOriginalContext) {
    const auto model = tiny::make({.family = "ministral3"});
    RopeScaling s;
    s.kind = RopeScaling::Kind::yarn;
    s.factor = 4;
    for (const int64_t original : {4, 16}) {
        s.original_context = double(original);
        set_frequencies(model->config, 10000, s, "test");
        if (original == 4) EXPECT_EQ(hf_config(hf_config_of(*model), "c").query_growth_every, 4);
        else EXPECT_THROW(hf_config_of(*model), Error);
    }
}

}  // namespace family_test
