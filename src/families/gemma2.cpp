// gemma2.cpp - Gemma 2 (arXiv:2408.00118): four norms a layer, each by 1 + w; embeddings times sqrt(hidden); gelu in
// the feed-forward; scores of attention and logits under a cap; every second layer sees a window of keys only.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gemma2_room {

// What llama.cpp divides scores by: it knows the model of 27 billion parameters by its layers.
float attention_scale_in_gguf(const Config& c) {
    return 1 / std::sqrt(float(c.layers == 46 ? c.hidden / c.heads : c.head_dim));
}

void configure(Config& c) {
    c.activation = Activation::gelu_tanh;
    c.post_norms = true;
    c.norms_from_one = true;
    c.full_every = 2;
}

void check(Config& c, const std::string& where) {
    c.embedding_scale = std::sqrt(float(c.hidden));
    for (const auto& [name, cap] : {std::pair{"attention", c.attention_cap}, std::pair{"logits", c.logit_cap}})
        if (!(cap >= 0 && cap <= 1e6f))
            fail(Errc::format, where, ": the soft cap of the ", name, " is ", cap, ", expected 0 to 1000000");
    if (!(c.attention_scale >= 1e-6f && c.attention_scale <= 1e6f))
        fail(Errc::format, where, ": the scale of attention is ", c.attention_scale, ", expected 0.000001 to 1000000");
    if (c.window < 1) fail(Errc::format, where, ": the sliding window is ", c.window, ", expected a number of keys");
}

float cap_of(const HfFields& f, std::string_view key, double by_class) {   // null: none
    const Json* v = f.json.find(key);
    return v && v->is_null() ? 0 : float(f.number(key, by_class));
}

void read_hf(Config& c, const HfFields& f, const Family& family) {
    const Json* window = f.json.find("sliding_window");    // a null is none, with which the class does not run
    c.window = window && window->is_null() ? 0 : f.integer("sliding_window", family.defaults.window);
    c.attention_cap = cap_of(f, "attn_logit_softcapping", 50);
    c.logit_cap = cap_of(f, "final_logit_softcapping", 30);
    const double scalar = f.number("query_pre_attn_scalar", 256);
    if (!(scalar > 0)) fail(Errc::format, f.at("query_pre_attn_scalar"), " is ", scalar, ", expected more than 0");
    c.attention_scale = float(1 / std::sqrt(scalar));
    if (f.boolean("use_bidirectional_attention", false))
        fail(Errc::unsupported, f.at("use_bidirectional_attention"), ": only causal attention is supported");
    check(c, f.where);
}

Json cap_json(float cap) { return cap > 0 ? Json(double(cap)) : Json(); }

void write_hf(const Config& c, Json& j) {
    const double scalar = 1 / (double(c.attention_scale) * double(c.attention_scale)), whole = std::round(scalar);
    j.set("attention_bias", c.biases[size_t(Module::o_proj)]).set("sliding_window", c.window);
    j.set("query_pre_attn_scalar", std::fabs(scalar - whole) < 1e-4 * scalar ? Json(int64_t(whole)) : Json(scalar));
    j.set("attn_logit_softcapping", cap_json(c.attention_cap)).set("final_logit_softcapping", cap_json(c.logit_cap));
}

void read_gguf(Config& c, const GgufFields& f) {
    c.window = f.integer("attention.sliding_window", 4096);
    c.attention_cap = float(f.number("attn_logit_softcapping", 50));
    c.logit_cap = float(f.number("final_logit_softcapping", 30));
    c.attention_scale = float(f.file.number("qlora.attention_scale", double(attention_scale_in_gguf(c))));
    check(c, "gguf: " + f.where);
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    const std::string prefix = std::string(family.gguf) + ".";
    out.set(prefix + "attn_logit_softcapping", GgufWriter::Type::f32, Json(double(c.attention_cap)));
    out.set(prefix + "final_logit_softcapping", GgufWriter::Type::f32, Json(double(c.logit_cap)));
    const float told = attention_scale_in_gguf(c);
    const bool same_scale = std::fabs(told - c.attention_scale) <= 1e-6f * told;
    const bool capped = c.attention_cap > 0 && c.logit_cap > 0;
    const char* what = !same_scale ? "another scale of attention" : !capped ? "no soft caps" : nullptr;
    if (what && !codes)
        fail(Errc::unsupported, "save: llama.cpp runs no ", family.name, " with ", what,
             "; save a Hugging Face folder, or 4-bit codes, which only this library reads");
    if (same_scale) return;
    out.set("qlora.attention_scale", GgufWriter::Type::f32, Json(double(c.attention_scale)));
}

}  // namespace gemma2_room

const Family gemma2_family{.name = "gemma2",
                           .gguf = "gemma2",
                           .hf_class = "Gemma2ForCausalLM",
                           .defaults = {.vocabulary = 256000,
                                        .hidden = 2304,
                                        .layers = 26,
                                        .heads = 8,
                                        .kv_heads = 4,
                                        .head_dim = 256,
                                        .feed_forward = 9216,
                                        .context = 8192,
                                        .window = 4096,
                                        .tied = true},
                           .attention_bias = true,
                           .activation_key = "hidden_activation",
                           .configure = gemma2_room::configure,
                           .read_hf = gemma2_room::read_hf,
                           .write_hf = gemma2_room::write_hf,
                           .read_gguf = gemma2_room::read_gguf,
                           .write_gguf = gemma2_room::write_gguf};

}}  // namespace qlora
