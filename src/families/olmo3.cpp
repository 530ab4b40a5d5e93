// olmo3.cpp - OLMo 3 (arXiv:2512.13961): OLMo 2 in which three layers of four see a window of keys, and turn by plain
// frequencies where the others are stretched.
#include "src/families/olmo2.h"

namespace qlora { inline namespace QLORA_ABI {
namespace olmo3_room {

void configure(Config& c) {
    olmo2::configure(c);
    c.full_every = 4;
}

void read_hf(Config& c, const HfFields& f, const Family& family) {
    const Json* window = f.json.find("sliding_window");
    c.window = window && window->is_null() ? 0 : f.integer("sliding_window", family.defaults.window);
    if (c.window == 0 && !f.find("layer_types")) refuse_window(c, f);
}

// The class wants a window, whether layers slide or not.
void write_hf(const Config& c, Json& j) { j.set("sliding_window", c.window ? c.window : int64_t(4096)); }

}  // namespace olmo3_room

const Family olmo3_family{.name = "olmo3",
                          .gguf = "olmo2",
                          .hf_class = "Olmo3ForCausalLM",
                          .defaults = {.vocabulary = 50304,
                                       .hidden = 4096,
                                       .layers = 32,
                                       .heads = 32,
                                       .kv_heads = 0,
                                       .head_dim = 0,
                                       .feed_forward = 11008,
                                       .context = 2048,
                                       .window = 4096,
                                       .eps = 1e-5,
                                       .theta = 500000},
                          .attention_bias = true,
                          .gguf_pattern = true,
                          .plain_sliding = true,
                          .gguf_head = Family::Head::own,
                          .configure = olmo3_room::configure,
                          .read_hf = olmo3_room::read_hf,
                          .write_hf = olmo3_room::write_hf,
                          .read_gguf = olmo2::read_gguf,
                          .write_gguf = olmo2::write_gguf};

}}  // namespace qlora
