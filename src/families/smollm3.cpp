// smollm3.cpp - SmolLM3: Llama in which every fourth layer does not turn its queries and keys.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace smollm3_room {

// every so-many-th layer does not turn
std::vector<uint8_t> by_rule(int64_t layers, int64_t interval) {
    std::vector<uint8_t> turned;
    for (int64_t i = 0; i < layers; ++i) turned.push_back((i + 1) % interval != 0);
    return turned;
}

void read_hf(Config& c, const HfFields& f, const Family&) {
    const int64_t interval = f.integer("no_rope_layer_interval", 4);
    if (interval < 1) fail(Errc::format, f.at("no_rope_layer_interval"), " is ", interval, ", expected at least 1");
    c.turned = by_rule(c.layers, interval);
    if (const Json* list = f.find("no_rope_layers")) {                 // 1: it turns
        const Json::Array& turns = list->as_array(f.at("no_rope_layers"));
        if (int64_t(turns.size()) < c.layers)
            fail(Errc::format, f.where, ": no_rope_layers has ", turns.size(), " entries for ", c.layers, " layers");
        for (int64_t i = 0; i < c.layers; ++i)
            c.turned[size_t(i)] = turns[size_t(i)].as_int(f.at("no_rope_layers")) != 0;
    }
    if (!f.boolean("use_sliding_window", false) || !f.find("sliding_window")) return;
    c.window = f.integer("sliding_window", 0);
    if (c.window == 0) refuse_window(c, f);
    for (const uint8_t turns : c.turned) c.sliding.push_back(!turns);
}

void write_hf(const Config& c, Json& j) {
    Json::Array turns;
    for (int64_t i = 0; i < c.layers; ++i) turns.push_back(Json(int64_t(c.turns(i))));
    j.set("no_rope_layers", Json(std::move(turns)));
    j.set("use_sliding_window", c.window > 0).set("sliding_window", c.window ? Json(c.window) : Json());
}

// llama.cpp knows no key for the layers that turn, and no window: the second key is of our own files.
void read_gguf(Config& c, const GgufFields& f) {
    c.turned = by_rule(c.layers, 4);
    if (f.file.pair("qlora.window_from_layer")) c.window = f.integer("attention.sliding_window", 0);
}

void write_gguf(const Config& c, const Family& family, GgufWriter&, bool codes) {
    if (!codes)
        refuse_for_llama_cpp(family, c.window                            ? "a sliding window"
                                     : c.turned != by_rule(c.layers, 4) ? "other layers that do not turn than every 4th"
                                                                         : nullptr);
}

}  // namespace smollm3_room

const Family smollm3_family{.name = "smollm3",
                            .gguf = "smollm3",
                            .hf_class = "SmolLM3ForCausalLM",
                            .defaults = {.vocabulary = 128256,
                                         .hidden = 2048,
                                         .layers = 36,
                                         .heads = 16,
                                         .kv_heads = 4,
                                         .head_dim = 0,
                                         .feed_forward = 11008,
                                         .context = 32768,
                                         .theta = 2e6,
                                         .tied = true},
                            .adjacent_pairs = true,
                            .attention_bias = true,
                            .mlp_bias = true,
                            .read_hf = smollm3_room::read_hf,
                            .write_hf = smollm3_room::write_hf,
                            .read_gguf = smollm3_room::read_gguf,
                            .write_gguf = smollm3_room::write_gguf};

}}  // namespace qlora
