// gpt_bigcode.cpp - StarCoder and SantaCoder (arXiv:2305.06161): GPT-2 whose queries share one key and one value. Files
// without multi_query have a key and a value for each head, behind its query.
#include "src/families/gpt2.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gpt_bigcode_room {

constexpr Fused shared[] = {{.gguf = "attn_qkv", .hf = "attn.c_attn", .linears = gpt2::qkv, .one = true}};
constexpr Fused by_head[] = {{.gguf = "attn_qkv",
                              .hf = "attn.c_attn",
                              .linears = gpt2::qkv,
                              .one = true,
                              .order = Fused::Order::heads}};

void set_order(Config& c) { c.names.fused = c.kv_heads == 1 ? std::span(shared) : std::span(by_head); }

void read_hf(Config& c, const HfFields& f, const Family&) {
    c.kv_heads = f.boolean("multi_query", true) ? 1 : c.heads;
    set_order(c);
    gpt2::read_hf(c, f);
}

void write_hf(const Config& c, Json& j) {
    gpt2::write_hf(c, j);
    j.set("multi_query", c.kv_heads == 1).set("activation_function", activation_name(c.activation));
    if (c.kv_heads != 1 && c.kv_heads != c.heads)
        fail(Errc::unsupported, "save: the class of gpt_bigcode has one key-value head, or as many as heads, not ",
             c.kv_heads);
}

void read_gguf(Config& c, const GgufFields& f) {
    set_order(c);
    gpt2::read_gguf(c, f);
}

}  // namespace gpt_bigcode_room

const Family gpt_bigcode_family{.name = "gpt_bigcode",
                                .gguf = "starcoder",
                                .hf_class = "GPTBigCodeForCausalLM",
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
                                          .fused = gpt_bigcode_room::shared,
                                          .ignored = gpt2::masks},
                                .aliases = gpt2::aliases,
                                .peft_targets = gpt2::targets,
                                .configure = gpt2::configure,
                                .read_hf = gpt_bigcode_room::read_hf,
                                .write_hf = gpt_bigcode_room::write_hf,
                                .read_gguf = gpt_bigcode_room::read_gguf,
                                .write_gguf = gpt2::write_gguf};

}}  // namespace qlora
