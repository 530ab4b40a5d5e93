// geglu.cuh - y = gelu(gate) * up and its gradient, {2, elements}: formulas in src/ops/geglu.cpp.
#pragma once
#include "src/cuda/gated.cuh"
#include "src/cuda/gelu.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace geglu_room {

using gelu_room::ByErf;
using gelu_room::ByTanh;

template <class Form> struct Forward {                 // of gate and up
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = Form::value(x[0]) * x[1]; }
};

template <class Form> struct Back {                    // of gate, up and dy: dgate and dup
    __device__ void operator()(int64_t, const float* x, float* y) const {
        float derivative;
        const float gelu = Form::value(x[0], derivative);
        y[0] = x[2] * x[1] * derivative;
        y[1] = x[2] * gelu;
    }
};

inline void run(const Call& call) {
    if (gelu_room::by_tanh(call)) gated::run<Forward<ByTanh>>(call);
    else gated::run<Forward<ByErf>>(call);
}
inline void back(const Call& call) {
    if (gelu_room::by_tanh(call)) gated::back<Back<ByTanh>>(call);
    else gated::back<Back<ByErf>>(call);
}

}  // namespace geglu_room
}  // namespace cuda

inline const Kernel geglu_cuda{cuda::geglu_room::run};
inline const Kernel geglu_back_cuda{cuda::geglu_room::back};

}}  // namespace qlora
