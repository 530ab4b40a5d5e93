// scale.cuh - y = factor * x, and y = s[row] * x for x {..., n}: src/ops/scale.cpp.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace scale_room {

struct Scale {
    Values x;
    float factor;
    Places y;
    __device__ void operator()(int64_t i) const { y.set(i, factor * x[i]); }
};

struct ScaleRows {
    Values x, s;
    int64_t n;                                         // elements of a row
    Places y;
    __device__ void operator()(int64_t i) const { y.set(i, s[i / n] * x[i]); }
};

inline void run(const Call& call) {
    const float factor = call.node.attr.get<ScaleAttr>().factor;
    each(call, call.node.elements(), Scale{values(call, 0), factor, places(call)});
}
inline void rows(const Call& call) {
    each(call, call.node.elements(), ScaleRows{values(call, 0), values(call, 1), last_dim(call.node), places(call)});
}

}  // namespace scale_room
}  // namespace cuda

const Kernel scale_cuda{cuda::scale_room::run};
const Kernel scale_rows_cuda{cuda::scale_room::rows};

}}  // namespace qlora
