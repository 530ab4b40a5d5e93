// attrs.h - the constants of each operation, as plain structs that the CPU rooms and the CUDA rooms both read.
// An operation that is not listed has none.
#pragma once
#include "qlora.h"

#include <cstdint>

namespace qlora { inline namespace QLORA_ABI {

struct ViewAttr { int64_t offset = 0; };               // elements from the start of the source's buffer
struct FillAttr { float value = 0; };
struct ScaleAttr { float factor = 1; };
struct GeluAttr { Gelu form = Gelu::erf; };               // of gelu, and of geglu
struct ClampAttr { float low = 0, high = 0; };
struct SoftcapAttr { float cap = 0; };                 // y = cap tanh(x / cap)
// element e is kept iff uniform(seed + step, stream, e) >= p, then divided by 1 - p; step: GraphImpl::step()
struct DropoutAttr { float p = 0; uint64_t seed = 0, stream = 0; };
struct LoraAttr { float scale = 1, p = 0; uint64_t seed = 0, stream = 0; };
struct RmsNormAttr { float eps = 1e-5f; };
struct LayerNormAttr { float eps = 1e-5f; };
struct RopeAttr {                                      // x {rows, heads * head_dim}
    int64_t head_dim = 0, rotated = 0;    // rotated <= head_dim, even: the first so many of a head turn, the rest pass
    bool adjacent = false;                             // pairs (2i, 2i+1) instead of (i, i + rotated/2)
    bool inverse = false;                              // turns back: the gradient
    float magnitude = 1;                               // factor on sine and cosine (yarn, longrope)
    // of whole heads: times 1 + growth ln(1 + floor(position / period)); period 0 = not
    float growth = 0;
    int64_t period = 0;
};
struct AttentionAttr {    // q {rows, heads * head_dim}, k and v {keys, kv_heads * head_dim}
    int64_t heads = 0, kv_heads = 0, head_dim = 0;
    float scale = 1;                                   // of the scores, usually 1 / sqrt(head_dim)
    float cap = 0;                                     // scores become cap tanh(score / cap); 0 = none
};
struct CrossEntropyAttr {
    int64_t chunk = 0;                                 // rows of logits in scratch at a time; 0 = the backend chooses
    bool with_grad = false;
    float cap = 0;                                     // logits become cap tanh(logit / cap); 0 = none
};
constexpr int64_t most_top_k = 1024;
struct TopKAttr { int64_t k = 0; };                    // numbers of each row, at most most_top_k
// max_norm 0 = no clipping
struct AdamWAttr { float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weight_decay = 0, max_norm = 0; };

}}  // namespace qlora
