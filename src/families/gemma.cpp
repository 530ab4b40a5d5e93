// gemma.cpp - Gemma (arXiv:2403.08295) and CodeGemma: Llama with gelu, norms by 1 + w, embeddings times sqrt(hidden).
#include "src/families/gemma.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gemma_room {

// The first files say "gelu" and mean the one by tanh, as every version of the class knows. hidden_activation is what
// some versions read instead, and others not at all.
void read_hf(Config& c, const HfFields& f, const Family& family) {
    const std::string act = f.text(family.activation_key, "gelu"), newer = f.text("hidden_activation", "");
    if (act == "gelu") c.activation = Activation::gelu_tanh;
    if (!newer.empty() && activation_named(newer) != c.activation)
        fail(Errc::unsupported, f.at("hidden_activation"), " \"", newer, "\" is not what hidden_act says (",
             activation_name(c.activation), "); versions of transformers differ in which of them they follow");
    gemma::refuse_bidirectional(f);
    gemma::check(c, f.where);
}

void write_hf(const Config& c, Json& j) { j.set("hidden_activation", activation_name(c.activation)); }

void read_gguf(Config& c, const GgufFields& f) { gemma::check(c, "gguf: " + f.where); }

}  // namespace gemma_room

const Family gemma_family{.name = "gemma",
                          .gguf = "gemma",
                          .hf_class = "GemmaForCausalLM",
                          .defaults = {.vocabulary = 256000,
                                       .hidden = 3072,
                                       .layers = 28,
                                       .heads = 16,
                                       .kv_heads = 16,
                                       .head_dim = 256,
                                       .feed_forward = 24576,
                                       .context = 8192,
                                       .tied = true},
                          .attention_bias = true,
                          .gguf_head = Family::Head::tied,
                          .configure = gemma::configure,
                          .read_hf = gemma_room::read_hf,
                          .write_hf = gemma_room::write_hf,
                          .read_gguf = gemma_room::read_gguf};

}}  // namespace qlora
