// copy.cuh - state = x, in place: src/ops/copy.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace copy_room {

struct Copy {
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = x[0]; }
};

inline void run(const Call& call) {
    map(call, call.node.elements(), Operands<1, 1>{{values(call, 1)}, {places(call)}}, Copy{});
}

}  // namespace copy_room
}  // namespace cuda

inline const Kernel copy_cuda{cuda::copy_room::run};

}}  // namespace qlora
