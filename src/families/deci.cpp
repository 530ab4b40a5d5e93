// deci.cpp - DeciLM 7B: Llama whose layers have different numbers of key-value heads.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {

const Family deci_family{.name = "deci",
                         .gguf = "deci",
                         .hf_class = "DeciLMForCausalLM",
                         .defaults = {.vocabulary = 32000,
                                      .hidden = 4096,
                                      .layers = 32,
                                      .heads = 32,
                                      .kv_heads = 0,
                                      .head_dim = 0,
                                      .feed_forward = 14336,
                                      .context = 8192},
                         .adjacent_pairs = true,
                         .rope_freqs = true,
                         .attention_bias = true,
                         .kv_heads_by_layer = true,
                         .gguf_biases = true};

}}  // namespace qlora
