// gemma2.cpp - Gemma 2 (arXiv:2408.00118): four norms a layer, each by 1 + w; embeddings times sqrt(hidden); gelu in
// the feed-forward; scores of attention and logits under a cap; every second layer sees a window of keys only.
#include "src/families/gemma.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gemma2_room {

constexpr int64_t layers_of_27b = 46;

void configure(Config& c) {
    gemma::configure(c);
    c.post_norms = true;
    c.full_every = 2;
}

void check(Config& c, const std::string& where) {
    gemma::check(c, where);
    if (c.window < 1) fail(Errc::format, where, ": the sliding window is ", c.window, ", expected a number of keys");
}

void read_hf(Config& c, const HfFields& f, const Family& family) {
    c.window = gemma::read_window(f, family);
    c.attention_cap = gemma::read_cap(f, "attn_logit_softcapping", 50);
    c.logit_cap = gemma::read_cap(f, "final_logit_softcapping", 30);
    gemma::read_scale(c, f);
    gemma::refuse_bidirectional(f);
    check(c, f.where);
}

void write_hf(const Config& c, Json& j) {
    j.set("sliding_window", c.window);
    gemma::write_scale(c, j);
    j.set("attn_logit_softcapping", gemma::cap_json(c.attention_cap));
    j.set("final_logit_softcapping", gemma::cap_json(c.logit_cap));
}

void read_gguf(Config& c, const GgufFields& f) {
    c.window = f.integer("attention.sliding_window", 4096);
    c.attention_cap = float(f.number("attn_logit_softcapping", 50));
    c.logit_cap = float(f.number("final_logit_softcapping", 30));
    gemma::read_scale(c, f, gemma::scale_in_gguf(c, layers_of_27b));
    check(c, "gguf: " + f.where);
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    const std::string prefix = std::string(family.gguf) + ".";
    out.set(prefix + "attn_logit_softcapping", GgufWriter::Type::f32, Json(double(c.attention_cap)));
    out.set(prefix + "final_logit_softcapping", GgufWriter::Type::f32, Json(double(c.logit_cap)));
    const bool other_scale = gemma::write_scale(c, out, gemma::scale_in_gguf(c, layers_of_27b));
    const bool capped = c.attention_cap > 0 && c.logit_cap > 0;
    if (!codes)
        refuse_for_llama_cpp(family, other_scale ? "another scale of attention" : !capped ? "no soft caps" : nullptr);
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
                           .gguf_pattern = true,
                           .gguf_head = Family::Head::tied,
                           .activation_key = "hidden_activation",
                           .configure = gemma2_room::configure,
                           .read_hf = gemma2_room::read_hf,
                           .write_hf = gemma2_room::write_hf,
                           .read_gguf = gemma2_room::read_gguf,
                           .write_gguf = gemma2_room::write_gguf};

}}  // namespace qlora
