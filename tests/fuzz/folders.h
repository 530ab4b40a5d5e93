// folders.h - fuzz targets of the files in Hugging Face and PEFT folders.
#pragma once
#include "src/model/base_record.h"
#include "src/model/lora_impl.h"
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
    Seeds seeds{plain, patterns.dump(), lists.dump()};
    const auto add = [&](const char* key, Json value) {
        Json other = config;
        seeds.push_back(other.set(key, std::move(value)).dump());
    };
    add("target_modules", "all-linear");
    add("target_modules", nullptr);
    add("layers_to_transform", int64_t(0));
    add("rank_pattern", Json().set("q_proj", rank + 1));
    add("bias", "all");
    add("peft_type", "LOHA");
    add("lora_dropout", 2.0);
    add("init_lora_weights", "olora");
    add("megatron_config", Json().set("a", int64_t(1)));
    add("layers_pattern", "blocks");
    for (const char* expression :
         {R"(\b\D+\W\w*\S+\.q_proj\b)", R"((?=model)(?!lm)(?:[^\s\Dx-z]|.)*?(?P<n>down)_proj\Z)", R"(a**)",
          R"((?<=a)b)", R"((?P=n))", R"((?>a))", R"((?i)a)", R"(*a)", R"(.*\B(_pro){1,2}j|\x41\d{2,3}[\b\]a-c])", R"((?P<n)"})
        add("target_modules", expression);
    return seeds;
}

// The adapter whose factors begin as the base's own directions: what PEFT reads of it, with a note of ours.
inline std::string pissa_file(const std::string& name) {
    static const Files files =
        lora_files(*create_lora(model(), {.rank = 2, .modules = "q_proj", .init = LoraInit::pissa}));
    return files.at(name);
}

inline Target adapter_target(const std::string& name) {
    return {[=] {
                Seeds seeds = name == "adapter_config.json" ? adapter_configs() : Seeds{adapter_file(name.c_str())};
                seeds.push_back(pissa_file(name));
                return seeds;
            },
            [=](std::string_view bytes) {
                for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
                    static std::map<std::string, std::string> whole;
                    const bool pissa = bytes.find("pissa") != bytes.npos;
                    std::string& valid = whole[file + std::string(pissa ? "pissa" : "")];
                    if (valid.empty()) valid = pissa ? pissa_file(file) : adapter_file(file);
                    put(std::string("peft/") + file, file == name ? bytes : std::string_view(valid));
                }
                if (name == "adapter_config.json" && bytes.size() % 2)         // its rules, for an adapter anew
                    create_lora(model(), read_peft_config(Json::parse(bytes, "fuzz"), "fuzz"));
                else load_lora(model(), folder() + "/peft");
            }};
}

// Adapters as mlx-lm writes them, of LoRA and of DoRA; what comes in replaces the file of that name.
inline std::string mlx_file(const std::string& name, bool dora) {
    static std::map<bool, std::string> made;
    std::string& path = made[dora];
    if (path.empty()) {
        path = folder() + (dora ? "/mlx_dora" : "/mlx_lora");
        save_lora_mlx(*create_lora(model(), {.rank = 2, .modules = "q_proj,down_proj", .dora = dora}), path);
    }
    return bytes_of(path + "/" + name);
}
inline Target mlx_target(const std::string& name) {
    return {[=] {
                return Seeds{mlx_file(name, false), mlx_file(name, true)};
            },
            [=](std::string_view bytes) {
                for (const bool dora : {false, true}) {
                    for (const char* file : {"adapter_config.json", "adapters.safetensors"})
                        put(std::string("mlx/") + file, file == name ? bytes : std::string_view(mlx_file(file, dora)));
                    try {
                        load_lora(model(), folder() + "/mlx");
                    } catch (const Error&) {           // beside the files of the other kind it may still be read
                    }
                }
            }};
}

// generation_config.json beside a model.
inline void read_generation(std::string_view bytes) {
    static const std::string copy = [] {
        const std::string to = folder() + "/generation";
        std::filesystem::copy(hugging_face(Folder::plain), to);
        return to;
    }();
    put("generation/generation_config.json", bytes);
    const auto model = tiny::load(copy);
    use(model);
    gguf_of(*model);                                   // what its makers say goes into the other world too
}

// base.json beside an adapter: the record of what it was trained on.
inline Seeds base_records() {
    const std::string plain = adapter_file("base.json");
    Seeds seeds{plain};
    for (const char* type : {"nf4", "fp4", "nf3"}) {
        Json other = Json::parse(plain, "seed");
        seeds.push_back(other.set("quant", type).set("double_quant", type[0] == 'n').dump());
        seeds.push_back(other.set("fingerprint", nullptr).dump());
    }
    Json other = Json::parse(plain, "seed");
    seeds.push_back(other.set("fingerprint", Json(*other.find("fingerprint")).set("weights", "0")).dump());
    return seeds;
}

inline void read_base(std::string_view bytes) {
    Files files{{"base.json", std::string(bytes)}};
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) files[file] = adapter_file(file);
    for (const OnBase on : {OnBase::recorded, OnBase::as_held}) load_lora(model(), Source::folder(files), on);
}

// Rotary scaling of every kind, windows, lists of layers.
inline Seeds configs() {
    const std::string sizes =
        R"("vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 8, "max_position_embeddings": 128, )";
    Seeds out;
    for (
        const char* rest :
        {R"("model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})",
         R"("model_type": "mistral", "sliding_window": 3, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4, "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.2}, "eos_token_id": [1, 2])",
         R"("model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}, "attention_bias": false, "mlp_bias": false, "partial_rotary_factor": 0.5, "tie_word_embeddings": true, "hidden_act": "silu")",
         R"("model_type": "qwen2", "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 0, "layer_types": ["sliding_attention"], "rope_scaling": {"type": "linear", "factor": 2.0})"})
        out.push_back("{" + sizes + rest + "}");
    for (
        const char* rest :
        {R"("model_type": "phi3", "rope_scaling": {"type": "longrope", "short_factor": [1, 1], "long_factor": [2, 2]}, "original_max_position_embeddings": 64)",
         R"("model_type": "gemma3_text", "sliding_window": 4, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 1000000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}, "layer_types": ["full_attention"])",
         R"("model_type": "ministral3", "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4, "mscale": 1.0, "mscale_all_dim": 0.5, "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.1, "truncate": false})",
         R"("model_type": "deci", "block_configs": [{"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1}}])",
         R"("model_type": "llama", "hidden_act": "gelu", "rope_scaling": {"rope_type": "su"})",
         R"("model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4})"})
        out.push_back("{" + sizes + rest + "}");
    return out;
}

// What config.json may say of 4-bit and 8-bit weights.
inline Seeds quantizations(Folder kind) {
    Seeds seeds;
    for (const char* said :
         {R"({"quant_method": "bitsandbytes", "load_in_8bit": true})", R"({"quant_method": "mxfp4"})",
          R"({"quant_method": "fp8", "weight_block_size": [32, 32]})", R"({"quant_method": "fp8", "weight_block_size": [32]})",
          R"({"quant_method": "modelopt", "quant_algo": "NVFP4"})", R"({"quant_method": "modelopt", "quant_algo": "X"})",
          R"({"quant_method": "compressed-tensors", "format": "int-quantized"})"}) {
        Json config = Json::parse(bytes_of(hugging_face(kind) + "/config.json"), "seed");
        seeds.push_back(config.set("quantization_config", Json::parse(said, "seed")).dump());
    }
    return seeds;
}

inline Targets folders() {
    return {
        {"config", model_file(Folder::plain, "config.json", configs())},
        {"tensors", model_file(Folder::plain, "model.safetensors")},
        {"four_bit_config", model_file(Folder::four_bit, "config.json", quantizations(Folder::four_bit))},
        {"four_bit_tensors", model_file(Folder::four_bit, "model.safetensors")},
        {"float8_config", model_file(Folder::float8, "config.json", quantizations(Folder::float8))},
        {"float8_tensors", model_file(Folder::float8, "model.safetensors")},
        {"index", model_file(Folder::shards, "model.safetensors.index.json")},
        {"adapter_config", adapter_target("adapter_config.json")},
        {"adapter", adapter_target("adapter_model.safetensors")},
        {"base_record", {base_records, read_base}},
        {"mlx_config", mlx_target("adapter_config.json")},
        {"mlx_tensors", mlx_target("adapters.safetensors")},
        {"generation_config",
         {[] {
              return Seeds{R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05,
                              "repetition_penalty": 1.1, "eos_token_id": [1, 2], "bos_token_id": 0})",
                           R"({"do_sample": false, "temperature": null, "max_length": 4096})"};
          },
          read_generation}},
    };
}

}  // namespace fuzz
