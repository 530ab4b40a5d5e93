// geglu.cuh - y = gelu(gate) * up and its gradient towards gate: formulas in src/ops/geglu.cpp.
#pragma once
#include "src/cuda/gelu.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace geglu_room {

using gelu_room::ByErf;
using gelu_room::ByTanh;

template <class Form> struct Forward {                 // of gate and up
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = Form::value(x[0]) * x[1]; }
};

template <class Form> struct Back {                    // of gate, up and dy
    __device__ void operator()(int64_t, const float* x, float* dgate) const {
        float derivative;
        Form::value(x[0], derivative);
        dgate[0] = x[2] * x[1] * derivative;
    }
};

inline void run(const Call& call) {
    if (gelu_room::by_tanh(call)) map<2>(call, Forward<ByTanh>{});
    else map<2>(call, Forward<ByErf>{});
}
inline void back(const Call& call) {
    if (gelu_room::by_tanh(call)) map<3>(call, Back<ByTanh>{});
    else map<3>(call, Back<ByErf>{});
}

}  // namespace geglu_room
}  // namespace cuda

inline const Kernel geglu_cuda{cuda::geglu_room::run};
inline const Kernel geglu_back_cuda{cuda::geglu_room::back};

}}  // namespace qlora
