// granite.cpp - Granite 3 (dense): Llama with four factors, on the embeddings, on the scores of attention, on what each
// branch of a layer adds, and, as a divisor, on the logits.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace granite_room {

float factor(double value, const std::string& where) {
    if (!(value >= 1e-6 && value <= 1e6)) fail(Errc::format, where, " is ", value, ", expected 0.000001 to 1000000");
    return float(value);
}

float divisor_of_logits(const Config& c) { return float(1 / double(c.logit_scale)); }
float attention_scale(const Config& c) {
    return c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(float(c.head_dim));
}

void read_hf(Config& c, const HfFields& f, const Family&) {
    const auto read = [&](const char* key) { return factor(f.number(key, 1), f.at(key)); };
    c.embedding_scale = read("embedding_multiplier");
    c.attention_scale = read("attention_multiplier");
    c.residual_scale = read("residual_multiplier");
    c.logit_scale = float(1 / double(read("logits_scaling")));
}

void write_hf(const Config& c, Json& j) {
    j.set("embedding_multiplier", double(c.embedding_scale)).set("attention_multiplier", double(attention_scale(c)));
    j.set("residual_multiplier", double(c.residual_scale)).set("logits_scaling", double(divisor_of_logits(c)));
}

void read_gguf(Config& c, const GgufFields& f) {
    const auto read = [&](const char* key) {           // 0: none
        const double value = f.number(key, 0);
        return value == 0 ? 0 : factor(value, "gguf: " + f.where + ": " + f.key(key));
    };
    const auto or_one = [](float value) { return value > 0 ? value : 1; };
    c.embedding_scale = or_one(read("embedding_scale"));
    c.attention_scale = read("attention.scale");
    c.residual_scale = or_one(read("residual_scale"));
    c.logit_scale = float(1 / double(or_one(read("logit_scale"))));
    if (!f.file.boolean(f.key("rope.scaling.finetuned"), true))
        fail(Errc::unsupported, "gguf: ", f.where, ": ", f.key("rope.scaling.finetuned"),
             " is false: a Granite without rotary embedding is not supported");
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool) {
    const std::string prefix = std::string(family.gguf) + ".";
    const auto set = [&](const char* key, float v) {
        out.set(prefix + key, GgufWriter::Type::f32, Json(double(v)));
    };
    set("embedding_scale", c.embedding_scale);
    set("attention.scale", attention_scale(c));
    set("residual_scale", c.residual_scale);
    set("logit_scale", divisor_of_logits(c));
}

}  // namespace granite_room

const Family granite_family{.name = "granite",
                            .gguf = "granite",
                            .hf_class = "GraniteForCausalLM",
                            .defaults = {.vocabulary = 32000,
                                         .hidden = 4096,
                                         .layers = 32,
                                         .heads = 32,
                                         .kv_heads = 0,
                                         .head_dim = 0,
                                         .feed_forward = 11008,
                                         .context = 2048},
                            .adjacent_pairs = true,
                            .rope_freqs = true,
                            .attention_bias = true,
                            .mlp_bias = true,
                            .gguf_biases = true,
                            .read_hf = granite_room::read_hf,
                            .write_hf = granite_room::write_hf,
                            .read_gguf = granite_room::read_gguf,
                            .write_gguf = granite_room::write_gguf};

}}  // namespace qlora
