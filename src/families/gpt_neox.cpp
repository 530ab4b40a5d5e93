// gpt_neox.cpp - GPT-NeoX and Pythia (arXiv:2204.06745, arXiv:2304.01373): attention and feed-forward side by side, a
// quarter of each head turned, and queries, keys and values in one layer, head by head.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gpt_neox_room {

constexpr Slot qkv[] = {Slot::q_proj, Slot::k_proj, Slot::v_proj};
constexpr Fused fused[] = {{.gguf = "attn_qkv",
                            .hf = "attention.query_key_value",
                            .linears = qkv,
                            .one = true,
                            .order = Fused::Order::heads}};
constexpr Renamed renamed[] = {{Slot::embedding, "gpt_neox.embed_in"},
                               {Slot::head, "embed_out"},
                               {Slot::final_norm, "gpt_neox.final_layer_norm"},
                               {Slot::o_proj, "attention.dense"},
                               {Slot::up_proj, "mlp.dense_h_to_4h"},
                               {Slot::down_proj, "mlp.dense_4h_to_h"}};
constexpr std::string_view ignored[] = {"attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"};
constexpr Alias aliases[] = {{"partial_rotary_factor", "rotary_pct"}, {"rope_theta", "rotary_emb_base"}};
constexpr std::string_view targets[] = {"query_key_value"};

void configure(Config& c) {
    c.gated = false;
    c.activation = Activation::gelu;
    c.norm = Norm::layer;
    c.parallel = true;
    c.biases[size_t(Module::up_proj)] = c.biases[size_t(Module::down_proj)] = true;
}

void read_hf(Config& c, const HfFields& f, const Family&) {
    if (c.heads * c.head_dim != c.hidden || c.kv_heads != c.heads)
        fail(Errc::format, f.where, ": ", c.heads, " heads of ", c.head_dim, " and ", c.kv_heads,
             " key-value heads do not make up the hidden size ", c.hidden);
    c.parallel = f.boolean("use_parallel_residual", true);
    const bool attention = f.boolean("attention_bias", true);
    for (int m = 0; m <= int(Module::o_proj); ++m) c.biases[size_t(m)] = attention;
}

void write_hf(const Config& c, Json& j) {
    j.set("use_parallel_residual", c.parallel);
    j.set("rotary_pct", double(c.rotated) / double(c.head_dim));
}

void read_gguf(Config& c, const GgufFields& f) {
    c.parallel = f.file.boolean(f.key("use_parallel_residual"), true);
}

// llama.cpp's feed-forward has the approximated gelu, whatever the file's model was trained with.
void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    out.set(std::string(family.gguf) + ".use_parallel_residual", GgufWriter::Type::boolean, Json(c.parallel));
    if (!codes && !c.biases[size_t(Module::q_proj)]) refuse_for_llama_cpp(family, "no biases in attention");
}

}  // namespace gpt_neox_room

const Family gpt_neox_family{.name = "gpt_neox",
                             .gguf = "gptneox",
                             .hf_class = "GPTNeoXForCausalLM",
                             .defaults = {.vocabulary = 50432,
                                          .hidden = 6144,
                                          .layers = 44,
                                          .heads = 64,
                                          .kv_heads = -1,
                                          .head_dim = 0,
                                          .feed_forward = 24576,
                                          .context = 2048,
                                          .eps = 1e-5,
                                          .rotated = 0.25},
                             .partial_rotation = true,
                             .attention_bias = true,
                             .gguf_biases = true,
                             .gguf_any_gelu = true,
                             .gguf_head = Family::Head::own,
                             .eps_key = "layer_norm_eps",
                             .names = {.layers = "gpt_neox.layers.",
                                       .tensors = gpt_neox_room::renamed,
                                       .fused = gpt_neox_room::fused,
                                       .ignored = gpt_neox_room::ignored},
                             .aliases = gpt_neox_room::aliases,
                             .peft_targets = gpt_neox_room::targets,
                             .configure = gpt_neox_room::configure,
                             .read_hf = gpt_neox_room::read_hf,
                             .write_hf = gpt_neox_room::write_hf,
                             .read_gguf = gpt_neox_room::read_gguf,
                             .write_gguf = gpt_neox_room::write_gguf};

}}  // namespace qlora
