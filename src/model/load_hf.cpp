// load_hf.cpp - a model out of a Hugging Face folder: config.json, safetensors (one file or shards), tokenizer.json.
// Linear layers may be stored in 4 bits as bitsandbytes writes them; each tensor says so itself, so that mixed
// checkpoints load too.
#include "src/model/hf_model.h"

namespace qlora { inline namespace QLORA_ABI {

namespace load_hf_room {

struct Loader {
    const HfTensors& tensors;
    const Config& config;
    Loading& loading;

    Weight plain(const std::string& name, const Shape& shape) {
        const HfTensors::Entry& e = tensors.get(name);
        Weight w = e.file->weight(*e.tensor);
        check_shape(w, shape, e.file->path());
        return w;
    }
    Weight linear(const std::string& name, const Shape& shape) {
        if (std::optional<Weight> w = read_bitsandbytes(tensors, name)) {
            check_shape(*w, shape, tensors.folder());
            return std::move(*w);
        }
        return plain(name, shape);
    }

    LayerWeights layer(int64_t i, const Json& json) {
        const Family& family = *family_named(config.family);
        LayerWeights l;
        const std::string prefix = str("model.layers.", i, ".");
        l.attention_norm = loading.small(plain(prefix + "input_layernorm.weight", {config.hidden}));
        l.feed_forward_norm = loading.small(plain(prefix + "post_attention_layernorm.weight", {config.hidden}));
        if (family.qk_norm) {
            l.q_norm = loading.small(plain(prefix + "self_attn.q_norm.weight", {config.head_dim}));
            l.k_norm = loading.small(plain(prefix + "self_attn.k_norm.weight", {config.head_dim}));
        }
        auto flag = [&](const char* key) {
            const Json* v = json.find(key);
            return v && !v->is_null() && v->as_bool(tensors.folder() + "/config.json: " + key);
        };
        for (int m = 0; m < module_count; ++m) {
            const std::string name = hf_name(i, Module(m));
            const Shape shape = linear_shape(config, Module(m));
            l.linear[m] = loading.linear(linear(name + ".weight", shape));
            const bool attention = m <= int(Module::o_proj);
            const bool required = (family.qkv_bias && m <= int(Module::v_proj)) ||
                                  flag(attention ? "attention_bias" : "mlp_bias");
            if (!required && tensors.find(name + ".bias"))     // transformers would leave it out
                fail(Errc::format, tensors.folder(), ": there is a tensor ", name,
                     ".bias, but config.json says nothing of ", attention ? "attention_bias" : "mlp_bias");
            if (required) l.bias[m] = as_f32(plain(name + ".bias", {shape[0]}));
        }
        return l;
    }

    // A tensor that no part of the model took would silently change what the model computes.
    void refuse_leftovers() const {
        static constexpr std::string_view rest[] = {"input_layernorm.weight", "post_attention_layernorm.weight",
                                                    "self_attn.rotary_emb.inv_freq"};
        const bool qk_norm = family_named(config.family)->qk_norm;
        for (const auto& [name, entry] : tensors.all()) {
            if (name == "model.embed_tokens.weight" || name == "model.norm.weight" || name == "lm_head.weight")
                continue;
            bool taken = false;
            const std::string_view view = name, layers = "model.layers.";
            const size_t dot = view.substr(0, layers.size()) == layers ? view.find('.', layers.size()) : view.npos;
            if (dot != view.npos) {
                const std::string_view local = view.substr(dot + 1);
                check_layer(view.substr(layers.size(), dot - layers.size()), config.layers, entry.file->path(), name);
                for (std::string_view r : rest) taken = taken || local == r;
                taken = taken ||
                        (qk_norm && (local == "self_attn.q_norm.weight" || local == "self_attn.k_norm.weight"));
                for (int m = 0; m < module_count; ++m) {
                    const std::string module = hf_name(0, Module(m)).substr(layers.size() + 2);
                    taken = taken || local == module + ".weight" || local == module + ".bias" ||
                            local.substr(0, module.size() + 8) == module + ".weight.";
                }
            }
            if (!taken)
                fail(Errc::unsupported, entry.file->path(), ": the tensor ", name, " is not part of a ", config.family,
                     " model as this library knows it");
        }
    }
};

void check_quantization(const Json& json, const std::string& where) {
    const Json* q = json.find("quantization_config");
    if (!q || q->is_null()) return;
    q->as_object(where + ": quantization_config");
    const Json *method = q->find("quant_method"), *bits8 = q->find("load_in_8bit");
    const std::string name = method && !method->is_null()
                                 ? method->as_string(where + ": quantization_config.quant_method")
                                 : "";
    if (name != "bitsandbytes")
        fail(Errc::unsupported, where, ": quant_method \"", name,
             "\" is not supported; load the original checkpoint, or one in bitsandbytes 4-bit or GGUF");
    if (bits8 && !bits8->is_null() && bits8->as_bool(where + ": quantization_config.load_in_8bit"))
        fail(Errc::unsupported, where, ": bitsandbytes in 8 bits is not supported, only in 4");
}

}  // namespace load_hf_room

std::shared_ptr<ModelImpl> load_hf_model(const std::string& folder, const LoadOptions& options) {
    const std::string where = folder + "/config.json";
    const Json json = Json::parse(read_file(where, int64_t(16) << 20), where);
    load_hf_room::check_quantization(json, where);
    auto model = std::make_shared<ModelImpl>();
    model->path = folder;
    model->backend = options.backend.impl();
    model->config = hf_config(json, where);
    Config& c = model->config;
    const HfTensors tensors(folder);
    c.tied = c.tied || !tensors.find("lm_head.weight");
    Loading loading(options, folder, c.layers);
    load_hf_room::Loader load{tensors, c, loading};
    load.refuse_leftovers();
    model->embedding = loading.keep(load.plain("model.embed_tokens.weight", {c.vocabulary, c.hidden}));
    model->final_norm = loading.small(load.plain("model.norm.weight", {c.hidden}));
    for (int64_t i = 0; i < c.layers; ++i) model->layers.push_back(load.layer(i, json));
    model->head = c.tied ? model->embedding : loading.keep(load.linear("lm_head.weight", {c.vocabulary, c.hidden}));
    if (exists(folder + "/tokenizer.json")) model->tokenizer = load_tokenizer(folder);
    set_text(*model);
    return model;
}

}}  // namespace qlora
