// fill.cuh - a tensor of one value: src/ops/fill.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace fill_room {

struct Fill {
    float value;
    __device__ void operator()(int64_t, const float*, float* y) const { y[0] = value; }
};

inline void run(const Call& call) { map<0>(call, Fill{call.node.attr.get<FillAttr>().value}); }

}  // namespace fill_room
}  // namespace cuda

inline const Kernel fill_cuda{cuda::fill_room::run};

}}  // namespace qlora
