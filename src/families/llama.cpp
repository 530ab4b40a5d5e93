// llama.cpp - Llama 1 to 3 (arXiv:2302.13971, arXiv:2307.09288, arXiv:2407.21783) and the many models of their shape.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace llama_room {

void read_gguf(Config& c, const GgufFields& f) { c.window = f.integer("attention.sliding_window", 0); }

}  // namespace llama_room

const Family llama_family{.name = "llama",
                          .gguf = "llama",
                          .hf_class = "LlamaForCausalLM",
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
                          .windowed = "mistral",
                          .read_gguf = llama_room::read_gguf};

}}  // namespace qlora
