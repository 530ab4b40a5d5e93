// swiglu.cuh - y = silu(gate) * up and its gradient towards gate: formulas in src/ops/swiglu.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace swiglu_room {

struct Forward {
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = x[0] / (1 + expf(-x[0])) * x[1]; }
};

struct Back {                                          // of gate, up and dy
    __device__ void operator()(int64_t, const float* x, float* dgate) const {
        const float s = 1 / (1 + expf(-x[0]));
        dgate[0] = x[2] * x[1] * s * (1 + x[0] * (1 - s));
    }
};

inline void run(const Call& call) { map<2>(call, Forward{}); }
inline void back(const Call& call) { map<3>(call, Back{}); }

}  // namespace swiglu_room
}  // namespace cuda

inline const Kernel swiglu_cuda{cuda::swiglu_room::run};
inline const Kernel swiglu_back_cuda{cuda::swiglu_room::back};

}}  // namespace qlora
