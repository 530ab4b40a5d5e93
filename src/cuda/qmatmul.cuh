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

}  // namespace qmatmul_room
}  // namespace cuda

const Kernel qmatmul_cuda{cuda::qmatmul_room::run<false>, cuda::qmatmul_room::scratch<false>};
const Kernel qmatmul_dx_cuda{cuda::qmatmul_room::run<true>, cuda::qmatmul_room::scratch<true>};

}}  // namespace qlora
