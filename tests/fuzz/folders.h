// folders.h - fuzz targets of the files in Hugging Face and PEFT folders.
#pragma once
#include "tests/fuzz/samples.h"

namespace fuzz {

// One file of a folder replaced by what comes in; its valid form is the seed.
inline Target model_file(Folder kind, const std::string& name, Seeds more = {}) {
    return {[=] {
                Seeds seeds = more;
                seeds.push_back(bytes_of(hugging_face(kind) + "/" + name));
                return seeds;
            },
            [=](std::string_view bytes) {
                const std::string source = hugging_face(kind), copy = folder() + "/" + name + std::to_string(int(kind));
                static std::string last;
                if (last != copy) {
                    std::filesystem::remove_all(copy);
                    std::filesystem::copy(source, copy);
                    last = copy;
                }
                std::ofstream(copy + "/" + name, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
                use(tiny::load(copy));
            }};
}

// The valid configuration, and the same adapter told in PEFT's expressions.
inline Seeds adapter_configs() {
    const std::string plain = adapter_file("adapter_config.json");
    const Json config = Json::parse(plain, "seed");
    const int64_t rank = config.find("r")->integer();
    Json patterns = config;
    patterns.set("target_modules", R"(.*\.(?:[qkvo]_proj|(gate|up|down)_proj))")
        .set("exclude_modules", R"(^lm_head$|embed_[a-z\d]{3,}\w*)")
        .set("layers_to_transform", nullptr)
        .set("rank_pattern", Json().set(R"(^model\.layers\.\d+\.self_attn\.q_proj)", rank).set("(up|down)_proj", rank));
    Json lists = config;
    lists.set("exclude_modules", Json(Json::Array{Json("lm_head")}))
        .set("alpha_pattern", Json().set("q_proj", int64_t(4)))
        .set("use_rslora", true);
    return {plain, patterns.dump(), lists.dump()};
}

inline Target adapter_target(const std::string& name) {
    return {[=] { return name == "adapter_config.json" ? adapter_configs() : Seeds{adapter_file(name.c_str())}; },
            [=](std::string_view bytes) {
                for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
                    static std::map<std::string, std::string> whole;
                    std::string& valid = whole[file];
                    if (valid.empty()) valid = adapter_file(file);
                    put(std::string("peft/") + file, file == name ? bytes : std::string_view(valid));
                }
                load_lora(model(), folder() + "/peft");
            }};
}

// Rotary scaling of every kind, windows, lists of layers.
inline Seeds configs() {
    const std::string sizes =
        R"("vocab_size": 8, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 64, "max_position_embeddings": 128, )";
    Seeds out;
    for (
        const char* rest :
        {R"("model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})",
         R"("model_type": "mistral", "sliding_window": 3, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4, "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.2}, "eos_token_id": [1, 2])",
         R"("model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}, "attention_bias": false, "mlp_bias": false, "partial_rotary_factor": 0.5, "tie_word_embeddings": true, "hidden_act": "silu")",
         R"("model_type": "qwen2", "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 0, "layer_types": ["sliding_attention"], "rope_scaling": {"type": "linear", "factor": 2.0})"})
        out.push_back("{" + sizes + rest + "}");
    return out;
}

inline Targets folders() {
    return {
        {"config", model_file(Folder::plain, "config.json", configs())},
        {"tensors", model_file(Folder::plain, "model.safetensors")},
        {"four_bit_config", model_file(Folder::four_bit, "config.json")},
        {"four_bit_tensors", model_file(Folder::four_bit, "model.safetensors")},
        {"float8_config", model_file(Folder::float8, "config.json")},
        {"float8_tensors", model_file(Folder::float8, "model.safetensors")},
        {"index", model_file(Folder::shards, "model.safetensors.index.json")},
        {"adapter_config", adapter_target("adapter_config.json")},
        {"adapter", adapter_target("adapter_model.safetensors")},
    };
}

}  // namespace fuzz
