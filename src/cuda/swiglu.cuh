// swiglu.cuh - y = silu(gate) * up and its gradient, {2, elements}: formulas in src/ops/swiglu.cpp.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace swiglu_room {

struct Forward {
    Values gate, up;
    Places y;
    __device__ void operator()(int64_t i) const {
        const float g = gate[i];
        y.set(i, g / (1 + expf(-g)) * up[i]);
    }
};

struct Back {
    Values gate, up, dy;
    Places out;                                        // {2, elements}: dgate, dup
    int64_t count;
    __device__ void operator()(int64_t i) const {
        const float g = gate[i], s = 1 / (1 + expf(-g)), d = dy[i];
        out.set(i, d * up[i] * s * (1 + g * (1 - s)));
        out.set(count + i, d * g * s);
    }
};

inline void run(const Call& call) {
    each(call, call.node.elements(), Forward{values(call, 0), values(call, 1), places(call)});
}
inline void back(const Call& call) {
    const int64_t count = call.source(0).elements();
    each(call, count, Back{values(call, 0), values(call, 1), values(call, 2), places(call), count});
}

}  // namespace swiglu_room
}  // namespace cuda

const Kernel swiglu_cuda{cuda::swiglu_room::run};
const Kernel swiglu_back_cuda{cuda::swiglu_room::back};

}}  // namespace qlora
