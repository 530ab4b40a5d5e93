// mul.cuh - y = a * b of one shape: src/ops/mul.cpp.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace mul_room {

struct Mul {
    Values a, b;
    Places y;
    __device__ void operator()(int64_t i) const { y.set(i, a[i] * b[i]); }
};

inline void run(const Call& call) {
    each(call, call.node.elements(), Mul{values(call, 0), values(call, 1), places(call)});
}

}  // namespace mul_room
}  // namespace cuda

const Kernel mul_cuda{cuda::mul_room::run};

}}  // namespace qlora
