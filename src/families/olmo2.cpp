// olmo2.cpp - OLMo 2 (arXiv:2501.00656): norms behind attention and feed-forward only, and over queries and keys.
#include "src/families/olmo2.h"

namespace qlora { inline namespace QLORA_ABI {
const Family olmo2_family{.name = "olmo2",
                          .gguf = "olmo2",
                          .hf_class = "Olmo2ForCausalLM",
                          .defaults = {.vocabulary = 50304,
                                       .hidden = 4096,
                                       .layers = 32,
                                       .heads = 32,
                                       .kv_heads = 0,
                                       .head_dim = 0,
                                       .feed_forward = 11008,
                                       .context = 2048,
                                       .eps = 1e-5},
                          .attention_bias = true,
                          .gguf_pattern = true,
                          .plain_sliding = true,
                          .gguf_head = Family::Head::own,
                          .windowed = "olmo3",
                          .configure = olmo2::configure,
                          .read_gguf = olmo2::read_gguf,
                          .write_gguf = olmo2::write_gguf};

}}  // namespace qlora
