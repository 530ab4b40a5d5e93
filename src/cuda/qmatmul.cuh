// qmatmul.cuh - y = x W^T and dx = dy W with a stored weight W: src/ops/qmatmul.cpp. How W is read: panels.cuh.
#pragma once
#include "src/cuda/panels.cuh"

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
    return product_with_stored_scratch(engine_of(g), product_of(g.source(node, 0), node), weight_of(g.source(node, 1)),
                                       to_x);
}
template <bool to_x> void run(const Call& call) {
    Product p = product_of(call.source(0), call.node);
    p.a = values(call, 0);
    p.c = places(call);
    product_with_stored(call, p, call.matrix(1), to_x);
}

// ---- Several products of one x, as q, k, v or gate and up are, when it has few rows.
inline std::vector<int32_t> products_of_x(const GraphImpl& g, std::span<const int32_t> run, size_t first) {
    const Node& node = g.node(run[first]);
    const auto fits = [&](const Node& n) {
        if (n.op != Op::qmatmul) return false;         // and so without a source, perhaps
        const Node& x = g.source(n, 0);                // a view may lie anywhere, a result where vectors are read
        return n.shape[0] <= gemv_room::most_vectors && x.storage == DType::bf16 &&
               x.op != Op::view && x.shape[1] % 8 == 0 &&
               gemv_room::takes_pairs(engine_of(g), weight_of(g.source(n, 1)));
    };
    if (!fits(node)) return {};
    std::vector<int32_t> group = neighbours(g, run, first, 0, size_t(gemv_room::most_matrices));
    std::erase_if(group, [&](int32_t id) {
        return !fits(g.node(id)) ||
               !gemv_room::are_alike(weight_of(g.source(node, 1)), weight_of(g.source(g.node(id), 1)));
    });
    return group;
}
inline void run_of_x(std::span<const Call> calls) {
    std::vector<WeightRef> weights;
    std::vector<Product> products;
    for (const Call& call : calls) {
        Product p = product_of(call.source(0), call.node);
        p.a = values(call, 0);
        p.c = places(call);
        weights.push_back(call.matrix(1));
        products.push_back(p);
        device_of(call).counted.add(2 * p.m * p.n * p.k, weights.back().bytes());
    }
    gemv_room::run_pairs(engine_of(calls[0]), weights, products, nullptr);
}

}  // namespace qmatmul_room
}  // namespace cuda

inline const Kernel qmatmul_cuda{cuda::qmatmul_room::run<false>, cuda::qmatmul_room::scratch<false>};
inline const Fusion qmatmuls_cuda{"products of one x", cuda::qmatmul_room::products_of_x,
                                  cuda::qmatmul_room::run_of_x};
inline const Kernel qmatmul_dx_cuda{cuda::qmatmul_room::run<true>, cuda::qmatmul_room::scratch<true>};

}}  // namespace qlora
