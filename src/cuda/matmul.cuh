// matmul.cuh - y = x W^T, dx = dy W and dW = dy^T x with a float W of the graph: src/ops/matmul.cpp. The first two are
// those of a stored weight of floats.
#pragma once
#include "src/cuda/qmatmul.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
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
    return product_scratch(g, dw_of(g.source(node, 0), g.source(node, 1), node));
}
inline void dw(const Call& call) {
    Product p = dw_of(call.source(0), call.source(1), call.node);
    p.a = values(call, 0);
    p.b = values(call, 1);
    p.c = places(call);
    device_of(call).counted.add(2 * p.m * p.n * p.k, p.k * p.n * 4);
    product(call, p, call.scratch);
}

}  // namespace matmul_room
}  // namespace cuda

inline const Kernel matmul_cuda{cuda::qmatmul_room::run<false>, cuda::qmatmul_room::scratch<false>};
inline const Kernel matmul_dx_cuda{cuda::qmatmul_room::run<true>, cuda::qmatmul_room::scratch<true>};
inline const Kernel matmul_dw_cuda{cuda::matmul_room::dw, cuda::matmul_room::dw_scratch};

}}  // namespace qlora
