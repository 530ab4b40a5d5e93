// qwen_window.h - the sliding window of Qwen's families: off unless the file turns it on, and from a layer on.
#pragma once
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace qwen_window {

inline void read_hf(Config& c, const HfFields& f, const Family& family) {
    if (!f.boolean("use_sliding_window", false)) return;
    c.window = f.integer("sliding_window", family.defaults.window);
    c.window_from_layer = f.integer("max_window_layers", 28);
    if (c.window == 0) refuse_window(c, f);
    if (c.window_from_layer < 0) fail(Errc::format, f.at("max_window_layers"), " is ", c.window_from_layer);
}

inline void write_hf(const Config& c, Json& j) {
    j.set("use_sliding_window", c.window > 0);
    if (c.window) j.set("sliding_window", c.window).set("max_window_layers", c.window_from_layer);
}

// llama.cpp ignores a window in these files, where the original model only uses it when told to.
inline void read_gguf(Config& c, const GgufFields& f) {
    if (f.file.pair("qlora.window_from_layer")) c.window = f.integer("attention.sliding_window", 0);
}

}  // namespace qwen_window
}}  // namespace qlora
