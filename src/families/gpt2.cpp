// gpt2.cpp - GPT-2: a learned row for each position in the place of rotation; layer norms and biases everywhere;
// queries, keys and values in one layer. Its class has matrices the other way round, {in, out}.
#include "src/families/gpt2.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gpt2_room {

constexpr Fused fused[] = {{.gguf = "attn_qkv", .hf = "attn.c_attn", .linears = gpt2::qkv, .one = true}};

void read_hf(Config& c, const HfFields& f, const Family&) {
    gpt2::read_hf(c, f);
    if (f.boolean("scale_attn_by_inverse_layer_idx", false))
        fail(Errc::unsupported, f.at("scale_attn_by_inverse_layer_idx"),
             ": scores of attention by the number of the layer are not supported");
}

}  // namespace gpt2_room

const Family gpt2_family{.name = "gpt2",
                         .gguf = "gpt2",
                         .hf_class = "GPT2LMHeadModel",
                         .defaults = {.vocabulary = 50257,
                                      .hidden = 768,
                                      .layers = 12,
                                      .heads = 12,
                                      .kv_heads = -1,
                                      .head_dim = 0,
                                      .feed_forward = 0,
                                      .context = 1024,
                                      .eps = 1e-5,
                                      .tied = true},
                         .activation_key = "activation_function",
                         .eps_key = "layer_norm_epsilon",
                         .names = {.layers = "transformer.h.",
                                   .tensors = gpt2::renamed,
                                   .fused = gpt2_room::fused,
                                   .transposed = true,
                                   .ignored = gpt2::masks},
                         .aliases = gpt2::aliases,
                         .peft_targets = gpt2::targets,
                         .configure = gpt2::configure,
                         .read_hf = gpt2_room::read_hf,
                         .write_hf = gpt2::write_hf,
                         .read_gguf = gpt2::read_gguf,
                         .write_gguf = gpt2::write_gguf};

}}  // namespace qlora
