// matmul.cuh - y = x W^T, dx = dy W and dW = dy^T x with a float W of the graph: src/ops/matmul.cpp. The first two are
// those of a stored weight of floats.
#pragma once
#include "src/cuda/qmatmul.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace matmul_room {

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

inline const Kernel matmul_cuda{cuda::qmatmul_room::run<false>, cuda::scratch_of(Op::matmul)};
inline const Kernel matmul_dx_cuda{cuda::qmatmul_room::run<true>, cuda::scratch_of(Op::matmul_dx)};
inline const Kernel matmul_dw_cuda{cuda::matmul_room::dw, cuda::scratch_of(Op::matmul_dw)};

}}  // namespace qlora
