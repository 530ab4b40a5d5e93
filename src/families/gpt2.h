// gpt2.h - what GPT-2 and BigCode's models share: names, fields, switches.
#pragma once
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gpt2 {

inline constexpr Slot qkv[] = {Slot::q_proj, Slot::k_proj, Slot::v_proj};
inline constexpr Renamed renamed[] = {
    {Slot::embedding, "transformer.wte"}, {Slot::positions, "transformer.wpe"}, {Slot::final_norm, "transformer.ln_f"},
    {Slot::attention_norm, "ln_1"},       {Slot::feed_forward_norm, "ln_2"},    {Slot::o_proj, "attn.c_proj"},
    {Slot::up_proj, "mlp.c_fc"},          {Slot::down_proj, "mlp.c_proj"},
};
inline constexpr std::string_view masks[] = {"attn.bias", "attn.masked_bias"};
inline constexpr Alias aliases[] = {{"hidden_size", "n_embd"},
                                    {"num_hidden_layers", "n_layer"},
                                    {"num_attention_heads", "n_head"},
                                    {"intermediate_size", "n_inner"},
                                    {"max_position_embeddings", "n_positions"}};
inline constexpr std::string_view targets[] = {"c_attn"};

inline void configure(Config& c) {
    c.gated = false;
    c.activation = Activation::gelu_tanh;
    c.norm = Norm::layer;
    c.learned_positions = true;
    for (const Module m : {Module::q_proj, Module::k_proj, Module::v_proj, Module::o_proj, Module::up_proj,
                           Module::down_proj})
        c.biases[size_t(m)] = true;
}

inline void check_heads(const Config& c, const std::string& where) {
    if (c.heads * c.head_dim != c.hidden)
        fail(Errc::format, where, ": ", c.heads, " heads of ", c.head_dim, " do not make up the hidden size ",
             c.hidden);
}

inline void read_hf(Config& c, const HfFields& f) {
    check_heads(c, f.where);
    if (!f.boolean("scale_attn_weights", true)) c.attention_scale = 1;
    if (f.boolean("add_cross_attention", false))
        fail(Errc::unsupported, f.at("add_cross_attention"), ": only models without an encoder are supported");
}

inline void write_hf(const Config& c, Json& j) {
    j.set("scale_attn_weights", c.attention_scale != 1 || c.head_dim == 1);
    j.set("activation_function", c.activation == Activation::gelu_tanh ? "gelu_new" : activation_name(c.activation));
}

inline void read_gguf(Config& c, const GgufFields& f) {
    check_heads(c, "gguf: " + f.where);
    c.attention_scale = float(f.file.number("qlora.attention_scale", 0));
}

inline void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    if (c.attention_scale == 0) return;
    if (!codes) refuse_for_llama_cpp(family, "another scale of attention");
    out.set("qlora.attention_scale", GgufWriter::Type::f32, Json(double(c.attention_scale)));
}

}  // namespace gpt2
}}  // namespace qlora
