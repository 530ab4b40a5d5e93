// add.cuh - y = a + b of one shape: src/ops/add.cpp.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace add_room {

struct Add {
    Values a, b;
    Places y;
    __device__ void operator()(int64_t i) const { y.set(i, a[i] + b[i]); }
};

inline void run(const Call& call) {
    each(call, call.node.elements(), Add{values(call, 0), values(call, 1), places(call)});
}

}  // namespace add_room
}  // namespace cuda

const Kernel add_cuda{cuda::add_room::run};

}}  // namespace qlora
