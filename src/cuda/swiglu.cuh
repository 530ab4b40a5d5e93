// swiglu.cuh - y = silu(gate) * up and its gradient, {2, elements}: formulas in src/ops/swiglu.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace swiglu_room {

struct Forward {
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = x[0] / (1 + expf(-x[0])) * x[1]; }
};

struct Back {                                          // gate, up, dy to dgate, dup
    __device__ void operator()(int64_t, const float* x, float* y) const {
        const float s = 1 / (1 + expf(-x[0]));
        y[0] = x[2] * x[1] * s * (1 + x[0] * (1 - s));
        y[1] = x[2] * x[0] * s;
    }
};

inline void run(const Call& call) { map<2>(call, Forward{}); }
inline void back(const Call& call) {
    const int64_t count = call.source(0).elements();
    const Places out = places(call);
    map(call, count,
        Operands<3, 2>{{values(call, 0), values(call, 1), values(call, 2)}, {out, places_from(out, count)}}, Back{});
}

}  // namespace swiglu_room
}  // namespace cuda

inline const Kernel swiglu_cuda{cuda::swiglu_room::run};
inline const Kernel swiglu_back_cuda{cuda::swiglu_room::back};

}}  // namespace qlora
