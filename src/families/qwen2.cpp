// qwen2.cpp - Qwen 1.5, 2 and 2.5 (arXiv:2407.10671): biases on queries, keys and values, which no field names.
#include "src/families/qwen_window.h"

namespace qlora { inline namespace QLORA_ABI {
namespace qwen2_room {

void configure(Config& c) {
    for (const Module m : {Module::q_proj, Module::k_proj, Module::v_proj}) c.biases[size_t(m)] = true;
}

}  // namespace qwen2_room

const Family qwen2_family{.name = "qwen2",
                          .gguf = "qwen2",
                          .hf_class = "Qwen2ForCausalLM",
                          .defaults = {.vocabulary = 151936,
                                       .hidden = 4096,
                                       .layers = 32,
                                       .heads = 32,
                                       .kv_heads = 32,
                                       .head_dim = 0,
                                       .feed_forward = 22016,
                                       .context = 32768,
                                       .window = 4096},
                          .configure = qwen2_room::configure,
                          .read_hf = qwen_window::read_hf,
                          .write_hf = qwen_window::write_hf,
                          .read_gguf = qwen_window::read_gguf};

}}  // namespace qlora
