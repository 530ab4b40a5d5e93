// hf_olmo.cpp - OLMo 1 in the layout of its own package, which its first files have: queries, keys and values in one
// layer, and so up and gate, in this order. It computes what olmo.cpp does; llama.cpp's files of both are the same.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace hf_olmo_room {

constexpr Slot qkv[] = {Slot::q_proj, Slot::k_proj, Slot::v_proj}, gate_up[] = {Slot::gate_proj, Slot::up_proj};
constexpr Fused fused[] = {{.gguf = "", .hf = "att_proj", .linears = qkv, .one = true},
                           {.gguf = "",
                            .hf = "ff_proj",
                            .linears = gate_up,
                            .one = true,
                            .order = Fused::Order::reversed}};
constexpr Renamed renamed[] = {{Slot::embedding, "model.transformer.wte"},
                               {Slot::head, "model.transformer.ff_out"},
                               {Slot::o_proj, "attn_out"},
                               {Slot::down_proj, "ff_out"}};
constexpr Alias aliases[] = {{"hidden_size", "d_model"},
                             {"num_hidden_layers", "n_layers"},
                             {"num_attention_heads", "n_heads"},
                             {"num_key_value_heads", "n_kv_heads"},
                             {"max_position_embeddings", "max_sequence_length"},
                             {"tie_word_embeddings", "weight_tying"}};
constexpr std::span<const std::string_view> no_targets;

void configure(Config& c) { olmo_family.configure(c); }

// What the package computes where the file says nothing is often not what any OLMo has.
void check_switches(const HfFields& f) {
    const struct { const char* key; bool by_class, needed; } switches[] = {
        {"rope", false, true},          {"alibi", false, false},
        {"include_bias", true, false},  {"layer_norm_with_affine", true, false},
        {"norm_after", false, false},   {"attention_layer_norm", false, false},
        {"scale_logits", false, false}};
    for (const auto& s : switches)
        if (f.boolean(s.key, s.by_class) != s.needed)
            fail(Errc::unsupported, f.at(s.key), " is ", s.needed ? "false" : "true",
                 f.find(s.key) ? "" : " (the default of the class)", ", which is not supported");
    const struct { const char *key, *needed; } words[] = {
        {"activation_type", "swiglu"}, {"block_type", "sequential"}, {"layer_norm_type", "default"}};
    for (const auto& w : words)
        if (const std::string word = f.text(w.key, w.needed); word != w.needed)
            fail(Errc::unsupported, f.at(w.key), " is \"", word, "\", expected ", w.needed);
    if (const int64_t n = f.integer("block_group_size", 1); n != 1)
        fail(Errc::unsupported, f.at("block_group_size"), " is ", n, ", expected 1");
}

void read_hf(Config& c, const HfFields& f, const Family& family) {
    check_switches(f);
    if (!f.find("num_key_value_heads") && f.boolean("multi_query_attention", false)) c.kv_heads = 1;
    // the embedding has more rows than there are tokens
    c.vocabulary = f.any("embedding_size") ? f.integer("embedding_size", c.vocabulary) : family.defaults.vocabulary;
    const int64_t up_and_gate = f.integer("mlp_hidden_size", 0);
    const int64_t ratio = f.integer("mlp_ratio", 4);
    c.feed_forward = (up_and_gate > 0 ? up_and_gate : checked_mul(ratio, c.hidden, f.at("mlp_ratio"))) / 2;
    check_config(c, f.where);
    if (c.heads * c.head_dim != c.hidden)
        fail(Errc::format, f.where, ": ", c.heads, " heads of ", c.head_dim, " do not make up d_model ", c.hidden);
    if (const double eps = f.number("layer_norm_eps", family.defaults.eps); float(eps) != c.eps)
        fail(Errc::unsupported, f.at("layer_norm_eps"), " is ", eps, ", OLMo's norms have ", family.defaults.eps);
    olmo_family.read_hf(c, f, family);
}

void write_hf(const Config& c, Json& j) {
    olmo_family.write_hf(c, j);
    for (const char* key : {"alibi", "include_bias", "layer_norm_with_affine", "attention_layer_norm", "scale_logits"})
        j.set(key, false);
    for (const char* key : {"attention_dropout", "embedding_dropout", "residual_dropout"}) j.set(key, 0.0);
    j.set("rope", true).set("embedding_size", c.vocabulary).set("mlp_hidden_size", 2 * c.feed_forward);
    j.set("activation_type", "swiglu").set("block_type", "sequential").set("layer_norm_type", "default");
}

void read_gguf(Config& c, const GgufFields& f) { olmo_family.read_gguf(c, f); }
void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    olmo_family.write_gguf(c, family, out, codes);
}

}  // namespace hf_olmo_room

const Family hf_olmo_family{.name = "hf_olmo",
                            .gguf = "olmo",
                            .hf_class = "OLMoForCausalLM",
                            .other_class = "OLMoModelForCausalLM",
                            .other_name = "olmo",
                            .defaults = {.vocabulary = 50304,
                                         .hidden = 768,
                                         .layers = 12,
                                         .heads = 12,
                                         .kv_heads = 0,
                                         .head_dim = 0,
                                         .feed_forward = 0,
                                         .context = 1024,
                                         .eps = 1e-5,
                                         .tied = true},
                            .adjacent_pairs = true,
                            .eps_key = "",
                            .names = {.layers = "model.transformer.blocks.",
                                      .tensors = hf_olmo_room::renamed,
                                      .fused = hf_olmo_room::fused,
                                      .tied_head = false},
                            .aliases = hf_olmo_room::aliases,
                            .peft_targets = hf_olmo_room::no_targets,
                            .configure = hf_olmo_room::configure,
                            .read_hf = hf_olmo_room::read_hf,
                            .write_hf = hf_olmo_room::write_hf,
                            .read_gguf = hf_olmo_room::read_gguf,
                            .write_gguf = hf_olmo_room::write_gguf};

}}  // namespace qlora
