// starcoder2.cpp - StarCoder 2 (arXiv:2402.19173): layer norms with biases, a feed-forward without a gate, biases
// everywhere, a sliding window where the file names one. llama.cpp knows no window in these files.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace starcoder2_room {

constexpr Renamed names[] = {{Slot::up_proj, "mlp.c_fc"}, {Slot::down_proj, "mlp.c_proj"}};

void configure(Config& c) {
    c.norm = Norm::layer;
    c.gated = false;
    c.activation = Activation::gelu_tanh;
}

void read_hf(Config& c, const HfFields& f, const Family&) {
    c.window = f.integer("sliding_window", 0);
    if (c.window == 0 && f.find("sliding_window")) refuse_window(c, f);
}

void write_hf(const Config& c, Json& j) { j.set("sliding_window", c.window ? Json(c.window) : Json()); }

void read_gguf(Config& c, const GgufFields& f) { c.window = f.integer("attention.sliding_window", 0); }

void write_gguf(const Config& c, const Family& family, GgufWriter&, bool codes) {
    const bool biased = c.biases[size_t(Module::q_proj)];
    if (!codes) refuse_for_llama_cpp(family, biased ? nullptr : "linear layers without biases");
}

}  // namespace starcoder2_room

const Family starcoder2_family{.name = "starcoder2",
                               .gguf = "starcoder2",
                               .hf_class = "Starcoder2ForCausalLM",
                               .defaults = {.vocabulary = 49152,
                                            .hidden = 3072,
                                            .layers = 30,
                                            .heads = 24,
                                            .kv_heads = 2,
                                            .head_dim = 0,
                                            .feed_forward = 12288,
                                            .context = 4096,
                                            .eps = 1e-5,
                                            .tied = true},
                               .use_bias = true,
                               .gguf_biases = true,
                               .eps_key = "norm_epsilon",
                               .names = {.tensors = starcoder2_room::names},
                               .configure = starcoder2_room::configure,
                               .read_hf = starcoder2_room::read_hf,
                               .write_hf = starcoder2_room::write_hf,
                               .read_gguf = starcoder2_room::read_gguf,
                               .write_gguf = starcoder2_room::write_gguf};

}}  // namespace qlora
