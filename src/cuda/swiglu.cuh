// swiglu.cuh - y = silu(gate) * up and its gradient, {2, elements}: formulas in src/ops/swiglu.cpp.
#pragma once
#include "src/cuda/gated.cuh"

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

}  // namespace swiglu_room
}  // namespace cuda

inline const Kernel swiglu_cuda{cuda::gated::run<cuda::swiglu_room::Forward>};
inline const Kernel swiglu_back_cuda{cuda::gated::back<cuda::swiglu_room::Back>};

}}  // namespace qlora
