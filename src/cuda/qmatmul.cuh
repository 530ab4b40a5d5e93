// qmatmul.cuh - y = x W^T and dx = dy W, perhaps added to what was there, with a stored weight W: src/ops/qmatmul.cpp.
// How W is read: panels.cuh.
#pragma once
#include "src/cuda/panels.cuh"
#include "src/cuda/plan/qmatmul.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace qmatmul_room {

template <bool to_x> void run(const Call& call) {
    Product p = product_of(call.source(0), call.node);
    p.a = values(call, 0);
    p.c = places(call);
    if (to_x && call.has(2)) p.beta = 1, p.d = values(call, 2), p.ldd = p.n;
    product_with_stored(call, p, call.matrix(1), to_x);
}

// ---- Several products of one x.
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

inline const Kernel qmatmul_cuda{cuda::qmatmul_room::run<false>, cuda::scratch_of(Op::qmatmul)};
inline const Fusion qmatmuls_cuda{cuda::qmatmul_room::fusion_name, cuda::qmatmul_room::products_of_x,
                                  cuda::qmatmul_room::run_of_x};
inline const Kernel qmatmul_dx_cuda{cuda::qmatmul_room::run<true>, cuda::scratch_of(Op::qmatmul_dx)};

}}  // namespace qlora
