// gemma3.cpp - Gemma 3 (arXiv:2503.19786), its text part: Gemma 2 with queries and keys normed head by head instead of
// caps; five layers of six see a window of keys only, and turn by plain frequencies of a base of their own.
#include "src/families/gemma.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gemma3_room {

constexpr int64_t layers_of_27b = 62;

void configure(Config& c) {
    gemma::configure(c);
    c.post_norms = true;
    c.q_k_norms = QkNorms::heads;
    c.full_every = 6;
}

void read_hf(Config& c, const HfFields& f, const Family& family) {
    c.window = gemma::read_window(f, family);
    c.full_every = f.integer("sliding_window_pattern", 6);
    if (c.full_every < 1) fail(Errc::format, f.at("sliding_window_pattern"), " is ", c.full_every);
    if (c.window == 0 && c.full_every > 1 && !f.find("layer_types")) refuse_window(c, f);
    c.sliding_theta = float(f.number("rope_local_base_freq", 10000));
    c.logit_cap = gemma::read_cap(f, "final_logit_softcapping", 0);
    if (f.find("attn_logit_softcapping"))
        fail(Errc::unsupported, f.at("attn_logit_softcapping"), ": Gemma 3 has no cap on the scores of attention");
    gemma::read_scale(c, f);
    gemma::refuse_bidirectional(f);
    gemma::check(c, f.where);
}

void write_hf(const Config& c, Json& j) {
    // the class wants a window, whether layers slide or not
    j.set("sliding_window", c.window ? c.window : int64_t(4096));
    // by which older versions know the layers
    j.set("sliding_window_pattern", c.window == 0 ? int64_t(1) : c.full_every);
    j.set("rope_local_base_freq", double(c.sliding_theta > 0 ? c.sliding_theta : c.rope_theta));
    gemma::write_scale(c, j);
    j.set("attn_logit_softcapping", Json()).set("final_logit_softcapping", gemma::cap_json(c.logit_cap));
}

void read_gguf(Config& c, const GgufFields& f) {
    c.window = f.integer("attention.sliding_window", 0);
    c.sliding_theta = 10000;
    c.logit_cap = float(f.number("final_logit_softcapping", 0));
    gemma::read_scale(c, f, gemma::scale_in_gguf(c, layers_of_27b));
    gemma::check(c, "gguf: " + f.where);
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    const std::string prefix = std::string(family.gguf) + ".";
    if (c.logit_cap > 0) out.set(prefix + "final_logit_softcapping", GgufWriter::Type::f32, Json(double(c.logit_cap)));
    const bool other_scale = gemma::write_scale(c, out, gemma::scale_in_gguf(c, layers_of_27b));
    // It scales layers that slide only by their own factor, but turns them by yarn as all others.
    const bool yarn = c.window && (c.rope_scaling.kind == RopeScaling::Kind::yarn || c.rope_magnitude != 1);
    if (!codes)
        refuse_for_llama_cpp(family, other_scale ? "another scale of attention"
                                     : yarn      ? "yarn and layers that slide"
                                                 : nullptr);
}

}  // namespace gemma3_room

const Family gemma3_text_family{.name = "gemma3_text",
                                .gguf = "gemma3",
                                .hf_class = "Gemma3ForCausalLM",
                                .defaults = {.vocabulary = 262208,
                                             .hidden = 2304,
                                             .layers = 26,
                                             .heads = 8,
                                             .kv_heads = 4,
                                             .head_dim = 256,
                                             .feed_forward = 9216,
                                             .context = 131072,
                                             .window = 4096,
                                             .theta = 1e6,
                                             .tied = true},
                                .attention_bias = true,
                                .gguf_pattern = true,
                                .plain_sliding = true,
                                .activation_key = "hidden_activation",
                                .configure = gemma3_room::configure,
                                .read_hf = gemma3_room::read_hf,
                                .write_hf = gemma3_room::write_hf,
                                .read_gguf = gemma3_room::read_gguf,
                                .write_gguf = gemma3_room::write_gguf};

}}  // namespace qlora
