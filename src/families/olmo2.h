// olmo2.h - what OLMo 2 and OLMo 3 share: norms behind attention and feed-forward only, queries and keys normed over
// all heads at once. GGUF has one architecture for both.
#pragma once
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace olmo2 {

inline void configure(Config& c) {
    c.pre_norms = false;
    c.post_norms = true;
    c.q_k_norms = QkNorms::rows;
}

// With a window it is OLMo 3.
inline void read_gguf(Config& c, const GgufFields& f) {
    c.window = f.integer("attention.sliding_window", 0);
    if (c.window > 0) c.full_every = 4;
}

inline void write_gguf(const Config& c, const Family& family, GgufWriter&, bool codes) {
    const bool heads = c.heads * c.head_dim != c.hidden;
    const bool bases = c.window && c.sliding_theta > 0 && c.sliding_theta != c.rope_theta;
    if (!codes)
        refuse_for_llama_cpp(family, heads   ? "heads that do not make up the hidden size"
                                     : bases ? "a rotary base of its own on the layers that slide"
                                             : nullptr);
}

}  // namespace olmo2
}}  // namespace qlora
