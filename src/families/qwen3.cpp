// qwen3.cpp - Qwen 3 (arXiv:2505.09388): queries and keys normed head by head, no biases unless the file asks for them.
#include "src/families/qwen_window.h"

namespace qlora { inline namespace QLORA_ABI {
namespace qwen3_room {

void configure(Config& c) { c.q_k_norms = QkNorms::heads; }

}  // namespace qwen3_room

const Family qwen3_family{.name = "qwen3",
                          .gguf = "qwen3",
                          .hf_class = "Qwen3ForCausalLM",
                          .defaults = {.vocabulary = 151936,
                                       .hidden = 4096,
                                       .layers = 32,
                                       .heads = 32,
                                       .kv_heads = 32,
                                       .head_dim = 128,
                                       .feed_forward = 22016,
                                       .context = 32768,
                                       .window = 4096},
                          .attention_bias = true,
                          .configure = qwen3_room::configure,
                          .read_hf = qwen_window::read_hf,
                          .write_hf = qwen_window::write_hf,
                          .read_gguf = qwen_window::read_gguf};

}}  // namespace qlora
