// config_shapes_test.cpp - config.json as the models of the field have it: fields that their authors wrote, numbers
// made small. Each loads as the family that it is, each field that would change what is computed counts or is refused.
#include "src/base/access.h"
#include "src/model/hf_model.h"
#include "tests/model/reference.h"

namespace config_shapes_test {

using namespace qlora;
using reference::expect_rows, reference::folder_of, reference::golden, reference::reference_ids;

Json parsed(const char* text) { return Json::parse(text, "config"); }

const char* sizes = R"("hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 40)";

TEST(ConfigShapes, OlderModelsAreOfTheFamiliesTheySayTheyAre) {
    const struct { const char *model, *family, *fields; int64_t window; double theta; bool tied; } table[] = {
        {"Qwen1.5", "qwen2",
         R"("architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 32768, "max_window_layers": 21,
            "model_type": "qwen2", "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
            "tie_word_embeddings": false, "use_cache": true, "use_sliding_window": false)", 0, 1e6, false},
        {"Yi", "llama",
         R"("architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "hidden_act": "silu",
            "max_position_embeddings": 4096, "model_type": "llama", "pad_token_id": 0, "pretraining_tp": 1,
            "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 5000000.0, "tie_word_embeddings": false)",
         0, 5e6, false},
        {"SOLAR", "llama",
         R"("_name_or_path": "x", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "model_type": "llama",
            "max_position_embeddings": 4096, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
            "rope_theta": 10000.0, "tie_word_embeddings": false, "use_cache": true)", 0, 1e4, false},
        {"Tulu 2", "llama",
         R"("architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "max_position_embeddings": 8192,
            "model_type": "llama", "pad_token_id": 0, "rms_norm_eps": 1e-05, "rope_scaling": null)", 0, 1e4, false},
        {"WizardLM", "llama",
         R"("architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "max_length": 2048, "model_type": "llama",
            "max_position_embeddings": 2048, "max_sequence_length": 2048, "rms_norm_eps": 1e-06)", 0, 1e4, false},
        {"Smaug", "qwen2",
         R"("architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "max_window_layers": 35, "model_type": "qwen2",
            "max_position_embeddings": 32768, "rope_theta": 1000000, "sliding_window": 32768,
            "tie_word_embeddings": false, "use_sliding_window": false)", 0, 1e6, false},
        {"Starling", "mistral",
         R"("architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu",
            "max_position_embeddings": 8192, "model_type": "mistral", "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
            "sliding_window": 4096, "tie_word_embeddings": false)", 4096, 1e4, false},
        {"CodeGemma", "gemma",
         R"("architectures": ["GemmaForCausalLM"], "attention_bias": false, "head_dim": 8, "hidden_act": "gelu",
            "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "model_type": "gemma",
            "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0)", 0, 1e4, true},
        {"SmolLM3", "smollm3",
         R"("architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "hidden_act": "silu", "mlp_bias": false,
            "layer_types": ["full_attention", "full_attention", "full_attention", "full_attention"],
            "max_position_embeddings": 65536, "max_window_layers": 28, "model_type": "smollm3", "no_rope_layer_interval": 4,
            "no_rope_layers": [1, 1, 1, 0], "pretraining_tp": 2, "rope_scaling": null, "rope_theta": 5000000.0,
            "sliding_window": null, "use_sliding_window": false)", 0, 5e6, true},
        {"Granite 3", "granite",
         R"("architectures": ["GraniteForCausalLM"], "attention_multiplier": 0.015625, "embedding_multiplier": 12.0,
            "hidden_act": "silu", "logits_scaling": 8.0, "max_position_embeddings": 131072, "model_type": "granite",
            "mlp_bias": false, "residual_multiplier": 0.22, "rope_scaling": null, "rope_theta": 10000000.0,
            "tie_word_embeddings": true)", 0, 1e7, true},
        {"OLMo 3", "olmo3",
         R"("architectures": ["Olmo3ForCausalLM"], "attention_bias": false, "hidden_act": "silu", "model_type": "olmo3",
            "max_position_embeddings": 65536, "rms_norm_eps": 1e-06, "rope_theta": 500000, "sliding_window": 4096,
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "rope_scaling": {"attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1, "factor": 8.0,
                             "original_max_position_embeddings": 8192, "rope_type": "yarn"})", 4096, 5e5, false}};
    for (const auto& row : table) {
        const Config c = hf_config(parsed(str("{", sizes, ", ", row.fields, "}").c_str()), row.model);
        EXPECT_EQ(c.family, row.family) << row.model;
        EXPECT_EQ(c.window, row.window) << row.model;
        EXPECT_EQ(double(c.rope_theta), row.theta) << row.model;
        EXPECT_EQ(c.tied, row.tied) << row.model;
        EXPECT_TRUE(c.sliding.empty()) << row.model << ": as the rule of the family has it";
    }
}

// What classes take for fields that a file leaves out.
TEST(ConfigShapes, DefaultsOfTheClasses) {
    const Config gemma3 = hf_config(parsed(R"({"model_type": "gemma3_text"})"), "c");
    EXPECT_EQ(gemma3.window, 4096);
    EXPECT_EQ(gemma3.full_every, 6);
    EXPECT_EQ(gemma3.rope_theta, 1e6f);
    EXPECT_EQ(gemma3.sliding_theta, 1e4f);
    EXPECT_EQ(gemma3.attention_scale, 1 / 16.0f);
    EXPECT_EQ(gemma3.logit_cap, 0);
    const Config ministral = hf_config(parsed(R"({"model_type": "ministral3"})"), "c");
    EXPECT_EQ(ministral.query_growth, 0.1f);
    EXPECT_EQ(ministral.query_growth_every, 16384);
    EXPECT_EQ(ministral.rope_scaling.factor, 16);
    EXPECT_EQ(ministral.rope_magnitude, 1);
    const Config smollm3 = hf_config(parsed(R"({"model_type": "smollm3"})"), "c");
    EXPECT_EQ(smollm3.rope_theta, 2e6f);
    EXPECT_EQ(smollm3.turned[2], 1);
    EXPECT_EQ(smollm3.turned[3], 0);
    const Config olmo3 = hf_config(parsed(R"({"model_type": "olmo3"})"), "c");
    EXPECT_EQ(olmo3.rope_theta, 5e5f);
    EXPECT_TRUE(olmo3.slides(2) && !olmo3.slides(3));
    const Config granite = hf_config(parsed(R"({"model_type": "granite"})"), "c");
    EXPECT_EQ(granite.attention_scale, 1);
}

TEST(ConfigShapes, EveryWrongFieldIsNamed) {
    const Json families = golden("families.json");
    const struct { const char *of, *key; Json value; const char* says; } table[] = {
        {"gemma", "hidden_activation", Json("gelu"), "hidden_activation"},
        {"gemma", "hidden_act", Json("quick_gelu"), "quick_gelu"},
        {"gemma", "use_bidirectional_attention", Json(true), "causal"},
        {"gemma3", "sliding_window_pattern", Json(0), "sliding_window_pattern"},
        {"gemma3", "sliding_window", Json(-1), "sliding_window"},
        {"gemma3", "sliding_window", Json(), "sliding_window"},
        {"gemma3", "attn_logit_softcapping", Json(50.0), "attn_logit_softcapping"},
        {"gemma3", "final_logit_softcapping", Json(-1.0), "soft cap of the logits"},
        {"gemma3", "query_pre_attn_scalar", Json(0), "query_pre_attn_scalar"},
        {"smollm3", "no_rope_layers", Json(Json::Array(3, Json(1))), "3 entries for 4 layers"},
        {"smollm3", "no_rope_layers", Json("all"), "no_rope_layers"},
        {"smollm3", "no_rope_layer_interval", Json(0), "no_rope_layer_interval"},
        {"granite", "residual_multiplier", Json(0.0), "residual_multiplier"},
        {"granite", "logits_scaling", Json(1e9), "logits_scaling"},
        {"granite", "attention_multiplier", Json(-1), "attention_multiplier"},
        {"olmo3", "layer_types", Json(Json::Array(4, Json("chunked_attention"))), "layer_types[0]"},
        {"olmo3", "sliding_window", Json(), "sliding_window"},
        {"ministral3", "sliding_window", Json(0), "sliding_window"},
        {"ministral3", "rope_parameters",
         parsed(R"({"rope_type": "default", "llama_4_scaling_beta": -1, "original_max_position_embeddings": 4})"),
         "growth of queries"},
        {"llama_mscale", "rope_parameters",
         parsed(R"({"rope_type": "yarn", "factor": 4.0, "mscale": -1.0, "mscale_all_dim": 1.0})"), "mscale"},
        {"hf_olmo", "rope", Json(), "rope is false (the default of the class)"},
        {"hf_olmo", "alibi", Json(true), "alibi is true"},
        {"hf_olmo", "include_bias", Json(), "include_bias is true (the default of the class)"},
        {"hf_olmo", "layer_norm_with_affine", Json(true), "layer_norm_with_affine"},
        {"hf_olmo", "layer_norm_type", Json("rms"), "layer_norm_type is \"rms\", expected default"},
        {"hf_olmo", "block_type", Json("llama"), "block_type"},
        {"hf_olmo", "block_group_size", Json(2), "block_group_size"},
        {"hf_olmo", "activation_type", Json("gelu"), "activation_type"},
        {"hf_olmo", "layer_norm_eps", Json(1e-3), "layer_norm_eps"},
        {"hf_olmo", "n_heads", Json(3), "n_heads"},
        {"hf_olmo", "mlp_hidden_size", Json(int64_t(1) << 40), "feed-forward size"},
        {"hf_olmo", "clip_qkv", Json(-1.0), "clip_qkv"},
        {"olmo3", "rope_parameters",
         parsed(R"({"full_attention": {"rope_type": "yarn", "factor": 4.0, "truncate": false}})"), "truncate"}};
    for (const auto& row : table) {
        Json config = *families.find("cases")->find(row.of)->find("config");
        if (std::string_view(row.key) == "sliding_window") config.set("layer_types", Json());
        config.set(row.key, row.value);
        std::string error = "read";
        try { hf_config(config, "config.json"); } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find(row.says), std::string::npos) << row.of << ", " << row.key << ": " << error;
    }
}

// OLMo 1 has two classes, and files of the older one have the model_type of either.
TEST(ConfigShapes, OlmoByItsClass) {
    Json config = *golden("families.json").find("cases")->find("hf_olmo")->find("config");
    for (const char* type : {"hf_olmo", "olmo"})
        for (const char* name : {"OLMoForCausalLM", "OLMoModelForCausalLM"}) {
            config.set("model_type", type).set("architectures", Json(Json::Array{Json(name)}));
            const Config c = hf_config(config, "c");
            EXPECT_EQ(c.family, "hf_olmo");
            EXPECT_EQ(c.vocabulary, 40);               // rows of the embedding, of which tokens have fewer
            EXPECT_EQ(c.feed_forward, 48);
            EXPECT_EQ(c.kv_heads, 2);
            EXPECT_EQ(c.clip_qkv, 0.8f);
        }
    config.set("mlp_hidden_size", Json()).set("n_kv_heads", Json());
    EXPECT_EQ(hf_config(config, "c").feed_forward, 64);                // 4 times the hidden size, for up and gate
    EXPECT_EQ(hf_config(config, "c").kv_heads, 4);
    Json large = config;                               // a ratio whose product with 32 begins again at 32
    EXPECT_THROW(hf_config(large.set("mlp_ratio", (int64_t(1) << 59) + 1), "c"), Error);
    EXPECT_THROW(hf_config(parsed(R"({"model_type": "gpt2", "n_embd": 9223372036854775807})"), "c"), Error);
    config.set("architectures", Json(Json::Array{Json("OlmoForCausalLM")}));
    EXPECT_EQ(hf_config(config, "c").family, "olmo");
    config.set("model_type", "hf_olmo");
    EXPECT_THROW(hf_config(config, "c"), Error);
}

// A folder of a model that sees as well, in both orders of names: its text part is the model of text, the rest is left
// out, which is said. What is saved is a model of text.
TEST(ConfigShapes, TheTextPartOfAModelThatSees) {
    const Json families = golden("families.json");
    const struct { const char *of, *type, *hf_class, *before, *layers; } table[] = {
        {"gemma3", "gemma3", "Gemma3ForConditionalGeneration", "language_model.", "language_model.model."},
        {"gemma3_odd", "gemma3", "Gemma3ForConditionalGeneration", "", "model.language_model."},
        {"ministral3", "mistral3", "Mistral3ForConditionalGeneration", "", "model.language_model."},
        {"mistral", "mistral3", "Mistral3ForConditionalGeneration", "language_model.", "language_model.model."}};
    for (const auto& row : table) {
        const Json& reference = *families.find("cases")->find(row.of);
        const auto plain = tiny::load(folder_of("plain_text", reference));
        const std::string folder = folder_of("sees", reference), saved = testing::TempDir() + "qlora_family_text";
        const auto tensors = SafeTensors::open(folder + "/model.safetensors");
        SafeTensorsWriter w;
        for (const SafeTensor& t : tensors->tensors())
            w.add(t.name.starts_with("model.") ? row.layers + t.name.substr(6) : row.before + t.name, t.shape,
                  tensors->floats(t));
        w.add(std::string(row.before).empty() ? "model.vision_tower.patch.weight" : "vision_tower.patch.weight", {2},
              {1, 2});
        w.write(folder + "/model.safetensors");
        Json config;
        config.set("architectures", Json(Json::Array{Json(row.hf_class)})).set("model_type", row.type);
        config.set("torch_dtype", "float32").set("vision_config", Json(Json::Object{}));
        Json text = *reference.find("config");
        std::erase_if(text.object(), [](const Json::Member& m) { return m.first == "architectures"; });
        std::ofstream(folder + "/config.json") << config.set("text_config", text).dump();
        const auto model = tiny::load(folder);
        EXPECT_EQ(tiny::logits(model, nullptr, reference_ids()), tiny::logits(plain, nullptr, reference_ids()));
        const ModelInfo info = describe(*model);
        ASSERT_EQ(info.notes.size(), 1u);
        EXPECT_NE(info.notes[0].find("1 tensors of that part are left out"), std::string::npos) << info.notes[0];
        std::filesystem::remove_all(saved);
        save_hf_model(*model, saved);
        EXPECT_EQ(tiny::logits(tiny::load(saved), nullptr, reference_ids()),
                  tiny::logits(plain, nullptr, reference_ids()));
        EXPECT_EQ(describe(*tiny::load(saved)).notes.size(), 0u);
        config.set("architectures", Json(Json::Array{Json("SomethingElse")}));
        std::ofstream(folder + "/config.json") << config.dump();
        EXPECT_THROW(tiny::load(folder), Error);
    }
}

// PEFT's adapter of the text part under the names of a class that sees as well, in both orders, and with what PEFT puts
// on the part that sees where only modules' names were given.
TEST(ConfigShapes, AdaptersOfAModelThatSees) {
    const Json reference = golden("peft_gemma3.json"), families = golden("families.json");
    const auto model = tiny::load(folder_of("sees_peft", *families.find("cases")->find("gemma3")));
    const auto golden_file = SafeTensors::open(golden_path("model/peft_gemma3/adapter_model.safetensors"));
    const std::string folder = testing::TempDir() + "qlora_family_seeing_adapter";
    const auto write = [&](std::string_view layers, const std::vector<std::pair<std::string, float>>& more) {
        std::filesystem::remove_all(folder);
        std::filesystem::create_directory(folder);
        std::filesystem::copy_file(golden_path("model/peft_gemma3/adapter_config.json"),
                                   folder + "/adapter_config.json");
        constexpr std::string_view start = "base_model.model.", text = "base_model.model.model.layers.";
        SafeTensorsWriter w;
        for (const SafeTensor& t : golden_file->tensors())
            w.add(str(start, layers, t.name.substr(text.size())), t.shape, golden_file->floats(t));
        for (const auto& [name, value] : more)
            w.add(str(start, name), {2, 1}, std::vector<float>{value, value});
        w.write(folder + "/adapter_model.safetensors");
    };
    const std::string vision = "model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_";
    for (const std::string_view layers : {"model.language_model.layers.", "language_model.model.layers."})
        for (const bool more : {false, true}) {
            write(layers, more ? std::vector<std::pair<std::string, float>>{{vision + "A.weight", 1},
                                                                           {vision + "B.weight", 0}}
                               : std::vector<std::pair<std::string, float>>{});
            expect_rows(tiny::logits(model, load_lora(model, folder).get(), reference_ids()),
                        *reference.find("logits"));
        }
    write("model.language_model.layers.", {{vision + "B.weight", 1}});
    EXPECT_THROW(load_lora(model, folder), Error);
    write("model.layers.", {{vision + "B.weight", 0}});                // of no class
    EXPECT_THROW(load_lora(model, folder), Error);
    // What is saved on such a base has the names of its class, all in full, and is the same adapter on either.
    const auto sees = std::make_shared<ModelImpl>(*model);
    sees->config.names.modules = seeing_layers[0];
    write("model.language_model.layers.", {});
    const auto lora = load_lora(sees, folder);
    const std::string saved = testing::TempDir() + "qlora_family_seeing_saved";
    std::filesystem::remove_all(saved);
    save_lora_peft(*lora, saved);
    const auto file = SafeTensors::open(saved + "/adapter_model.safetensors");
    EXPECT_NE(file->find("base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"), nullptr);
    const Json config = Json::parse(read_file(saved + "/adapter_config.json"), "c");
    EXPECT_EQ(config.find("target_modules")->array().size(), lora->targets.size());
    EXPECT_EQ(config.find("target_modules")->array()[0].string(), "model.language_model.layers.0.self_attn.q_proj");
    for (const auto& base : {model, std::shared_ptr<ModelImpl>(sees)})
        expect_rows(tiny::logits(base, load_lora(base, saved).get(), reference_ids()), *reference.find("logits"));
}

}  // namespace config_shapes_test
