// qmatmul.h - products of operations: with a stored weight or floats of the graph, several of one x, and the gradient
// of floats.
#pragma once
#include "src/cuda/plan/panels.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace qmatmul_room {

// Of {rows, k} and a result {rows, n}; without memory where sizes and types are enough.
inline Product product_of(const Node& x, const Node& y) {
    Product p;
    p.m = x.shape[0], p.k = x.shape[1], p.n = y.shape[1];
    p.a.type = x.storage, p.lda = p.k;
    p.c.type = y.storage, p.ldc = p.n;
    return p;
}
inline WeightRef weight_of(const Node& n) {            // its sizes and type
    if (n.weight) return n.weight->ref();
    WeightRef w;
    w.dtype = n.storage;
    w.rows = n.shape[0], w.cols = n.shape[1];
    return w;
}

template <bool to_x> int64_t scratch(const GraphImpl& g, const Node& node) {
    return product_with_stored_scratch(facts_of(g), product_of(g.source(node, 0), node), weight_of(g.source(node, 1)),
                                       to_x);
}
// ---- Several products of one x, as q, k, v or gate and up are, when it has few rows.
constexpr const char* fusion_name = "products of one x";
inline std::vector<int32_t> products_of_x(const GraphImpl& g, std::span<const int32_t> run, size_t first) {
    const Node& node = g.node(run[first]);
    const auto fits = [&](const Node& n) {
        if (n.op != Op::qmatmul) return false;         // and so without a source, perhaps
        const Node& x = g.source(n, 0);                // a view may lie anywhere, a result where vectors are read
        return n.shape[0] <= gemv_room::most_vectors && x.storage == DType::bf16 &&
               x.op != Op::view && x.shape[1] % 8 == 0 &&
               gemv_room::takes_pairs(facts_of(g), weight_of(g.source(n, 1)));
    };
    if (!fits(node)) return {};
    std::vector<int32_t> group = neighbours(g, run, first, 0, size_t(gemv_room::most_matrices));
    std::erase_if(group, [&](int32_t id) {
        return !fits(g.node(id)) ||
               !gemv_room::are_alike(weight_of(g.source(node, 1)), weight_of(g.source(g.node(id), 1)));
    });
    return group;
}

}  // namespace qmatmul_room

namespace matmul_room {

inline Product dw_of(const Node& dy, const Node& x, const Node& dw) {          // {out, in} = dy^T x
    Product p;
    p.m = dy.shape[1], p.n = x.shape[1], p.k = dy.shape[0];
    p.a.type = dy.storage, p.lda = p.m, p.a_across = true;
    p.b.type = x.storage, p.ldb = p.n, p.b_across = true;
    p.c.type = dw.storage, p.ldc = p.n;
    return p;
}
inline int64_t dw_scratch(const GraphImpl& g, const Node& node) {
    return product_scratch(facts_of(g), dw_of(g.source(node, 0), g.source(node, 1), node));
}

}  // namespace matmul_room
}  // namespace cuda
}}  // namespace qlora
