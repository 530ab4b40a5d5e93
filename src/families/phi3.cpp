// phi3.cpp - Phi 3, 3.5 and 4 (arXiv:2404.14219, arXiv:2412.08905): queries, keys and values in one matrix, and so gate
// and up; one adapter for each of them.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace phi3_room {

constexpr Slot qkv[] = {Slot::q_proj, Slot::k_proj, Slot::v_proj}, gate_up[] = {Slot::gate_proj, Slot::up_proj};
constexpr Fused fused[] = {
    {.gguf = "attn_qkv", .hf = "self_attn.qkv_proj", .linears = qkv, .one = true},
    {.gguf = "ffn_up", .hf = "mlp.gate_up_proj", .linears = gate_up, .one = true},
};
// PEFT has no list for the class.
constexpr std::span<const std::string_view> no_targets;

void read_hf(Config& c, const HfFields& f, const Family&) {
    c.window = f.integer("sliding_window", 0);
    if (c.window == 0 && f.find("sliding_window")) refuse_window(c, f);
}

void write_hf(const Config& c, Json& j) {
    j.set("sliding_window", c.window ? Json(c.window) : Json());
    // the class has a padding token, which must be a row of the embedding
    if (c.vocabulary <= 32000) j.set("pad_token_id", Json());
}

// Files of the first converters have no key; those of later ones say 0 for none.
void read_gguf(Config& c, const GgufFields& f) { c.window = f.integer("attention.sliding_window", 0); }

}  // namespace phi3_room

const Family phi3_family{.name = "phi3",
                         .gguf = "phi3",
                         .hf_class = "Phi3ForCausalLM",
                         .defaults = {.vocabulary = 32064,
                                      .hidden = 3072,
                                      .layers = 32,
                                      .heads = 32,
                                      .kv_heads = 0,
                                      .head_dim = 0,
                                      .feed_forward = 8192,
                                      .context = 4096,
                                      .eps = 1e-5},
                         .partial_rotation = true,
                         .names = {.fused = phi3_room::fused},
                         .peft_targets = phi3_room::no_targets,
                         .read_hf = phi3_room::read_hf,
                         .write_hf = phi3_room::write_hf,
                         .read_gguf = phi3_room::read_gguf};

}}  // namespace qlora
