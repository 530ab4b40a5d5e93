// gemma.h - what the generations of Gemma share: gelu in the feed-forward, norms by 1 + w, embeddings times
// sqrt(hidden), scores of attention on a scale of their own, caps.
#pragma once
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gemma {

inline void configure(Config& c) {
    c.activation = Activation::gelu_tanh;
    c.norms_from_one = true;
    c.scaled_lookup = true;
}

inline void check(Config& c, const std::string& where) {
    c.embedding_scale = std::sqrt(float(c.hidden));
    for (const auto& [name, cap] : {std::pair{"attention", c.attention_cap}, std::pair{"logits", c.logit_cap}})
        if (!(cap >= 0 && cap <= 1e6f))
            fail(Errc::format, where, ": the soft cap of the ", name, " is ", cap, ", expected 0 to 1000000");
    if (!(c.attention_scale == 0 || (c.attention_scale >= 1e-6f && c.attention_scale <= 1e6f)))
        fail(Errc::format, where, ": the scale of attention is ", c.attention_scale, ", expected 0.000001 to 1000000");
}

inline void refuse_bidirectional(const HfFields& f) {
    if (f.boolean("use_bidirectional_attention", false))
        fail(Errc::unsupported, f.at("use_bidirectional_attention"), ": only causal attention is supported");
}

inline float read_cap(const HfFields& f, std::string_view key, double by_class) {      // null: none
    const Json* v = f.json.find(key);
    return v && v->is_null() ? 0 : float(f.number(key, by_class));
}
inline Json cap_json(float cap) { return cap > 0 ? Json(double(cap)) : Json(); }

inline int64_t read_window(const HfFields& f, const Family& family) {  // null: none
    const Json* v = f.json.find("sliding_window");
    return v && v->is_null() ? 0 : f.integer("sliding_window", family.defaults.window);
}

inline void read_scale(Config& c, const HfFields& f) {
    const double scalar = f.number("query_pre_attn_scalar", 256);
    if (!(scalar > 0)) fail(Errc::format, f.at("query_pre_attn_scalar"), " is ", scalar, ", expected more than 0");
    c.attention_scale = float(1 / std::sqrt(scalar));
    if (c.attention_scale == 0) fail(Errc::format, f.where, ": the scale of attention is 0");
}

inline void write_scale(const Config& c, Json& j) {
    const double scalar = 1 / (double(c.attention_scale) * double(c.attention_scale)), whole = std::round(scalar);
    j.set("query_pre_attn_scalar", std::fabs(scalar - whole) < 1e-4 * scalar ? Json(int64_t(whole)) : Json(scalar));
}

// What llama.cpp multiplies scores by: it knows the model of 27 billion parameters by its layers.
inline float scale_in_gguf(const Config& c, int64_t layers_of_27b) {
    return float(1 / std::sqrt(double(c.layers == layers_of_27b ? c.hidden / c.heads : c.head_dim)));
}

inline void read_scale(Config& c, const GgufFields& f, float told) {
    c.attention_scale = float(f.file.number("qlora.attention_scale", double(told)));
}

// Whether llama.cpp would take another scale; our own files say it.
inline bool write_scale(const Config& c, GgufWriter& out, float told) {
    const bool other = std::fabs(told - c.attention_scale) > 1e-6f * told;
    if (other) out.set("qlora.attention_scale", GgufWriter::Type::f32, Json(double(c.attention_scale)));
    return other;
}

}  // namespace gemma
}}  // namespace qlora
