// mistral.cpp - Mistral 7B and its kin (arXiv:2310.06825): Llama with a sliding window. GGUF files call it llama.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace mistral_room {

// Version 5 of the class defaults to 4096; a null means that every key is seen.
void read_hf(Config& c, const HfFields& f, const Family& family) {
    const Json* v = f.json.find("sliding_window");
    c.window = v && v->is_null() ? 0 : f.integer("sliding_window", family.defaults.window);
    if (c.window == 0 && f.find("sliding_window")) refuse_window(c, f);
}

void write_hf(const Config& c, Json& j) { j.set("sliding_window", c.window ? Json(c.window) : Json()); }

void read_gguf(Config& c, const GgufFields& f) { c.window = f.integer("attention.sliding_window", 0); }

}  // namespace mistral_room

const Family mistral_family{.name = "mistral",
                            .gguf = "llama",
                            .hf_class = "MistralForCausalLM",
                            .defaults = {.vocabulary = 32000,
                                         .hidden = 4096,
                                         .layers = 32,
                                         .heads = 32,
                                         .kv_heads = 8,
                                         .head_dim = 0,
                                         .feed_forward = 14336,
                                         .context = 131072,
                                         .window = 4096},
                            .adjacent_pairs = true,
                            .rope_freqs = true,
                            .read_hf = mistral_room::read_hf,
                            .write_hf = mistral_room::write_hf,
                            .read_gguf = mistral_room::read_gguf};

}}  // namespace qlora
