// linear_cross_entropy.h - the loss of a vocabulary that is projected chunk by chunk: how many rows a chunk has, its
// products and its scratch.
#pragma once
#include "src/cuda/plan/qmatmul.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace linear_cross_entropy_room {

// Bytes of logits in scratch: so many that reading W again for each chunk costs little beside its products. Tests make
// it small.
inline int64_t most_logits = int64_t(256) << 20;
constexpr int64_t most_rows = 2048;                    // of a chunk: nothing is gained by more

struct Sizes {
    int64_t rows, n, vocabulary;
    int64_t pitch;                                     // floats a row of logits: rows begin at multiples of 32 bytes
    int64_t chunk;                                     // rows of x at a time, whole tiles of products if it can be
    DType gradient;                                    // of the logits: how it is stored for the second product
    int64_t chunks() const { return gemm_room::ceil_div(rows, chunk); }
    int64_t logits() const { return gemm_room::whole(chunk * pitch * 4); }
    int64_t gathered() const { return gemm_room::whole(chunk * n * 4); }       // x, and later its gradient in f32
    int64_t list() const { return gemm_room::whole((rows + chunks()) * 4); }
    int64_t bytes() const { return logits() + gathered() + list(); }
};

inline Sizes sizes(const Facts& on, const GraphImpl& g, const Node& node) {
    constexpr int64_t tile = 128;
    const Node &x = g.source(node, 0), &w = g.source(node, 1);
    Sizes s{};
    s.rows = x.shape[0];
    s.n = x.shape[1];
    s.vocabulary = w.shape[0];
    s.pitch = gemm_room::ceil_div(s.vocabulary, 8) * 8;
    const int64_t asked = node.attr.get<CrossEntropyAttr>().chunk;
    const int64_t most = std::clamp<int64_t>(most_logits / 4 / s.pitch, 1, asked > 0 ? asked : most_rows);
    const int64_t whole = most < tile ? most : most / tile * tile, turns = gemm_room::ceil_div(s.rows, whole);
    s.chunk = turns < 2 ? std::max<int64_t>(s.rows, 1)
                        : std::min(whole, gemm_room::ceil_div(gemm_room::ceil_div(s.rows, turns), tile) * tile);
    s.gradient = on.exact ? DType::f32 : DType::bf16;
    return s;
}

// ---- The products of a chunk, without memory.
inline Product logits_product(const Sizes& s, DType x) {   // times W^T
    Product p;
    p.m = s.chunk, p.n = s.vocabulary, p.k = s.n;
    p.a.type = x, p.lda = s.n;
    p.ldc = s.pitch;
    return p;
}
inline Product gradient_product(const Sizes& s) {          // times W
    Product p;
    p.m = s.chunk, p.n = s.n, p.k = s.vocabulary;
    p.a.type = s.gradient, p.lda = s.gradient == DType::f32 ? s.pitch : 2 * s.pitch;
    p.ldc = s.n;
    return p;
}

inline int64_t scratch(const GraphImpl& g, const Node& node) {
    const Sizes s = sizes(facts_of(g), g, node);
    const WeightRef w = qmatmul_room::weight_of(g.source(node, 1));
    const DType x = g.source(node, 0).storage;
    return s.bytes() + std::max(product_with_stored_scratch(facts_of(g), logits_product(s, x), w, false),
                                product_with_stored_scratch(facts_of(g), gradient_product(s), w, true));
}

}  // namespace linear_cross_entropy_room
}  // namespace cuda
}}  // namespace qlora
