// geglu.cuh - y = gelu(gate) * up, the gelu of tanh, and its gradient, {2, elements}: formulas in src/ops/geglu.cpp,
// guards against products of 0 and infinity in src/cpu/exp_constants.h.
#pragma once
#include "src/cpu/exp_constants.h"
#include "src/cuda/gated.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace geglu_room {

struct Forward {                                       // of gate and up
    __device__ void operator()(int64_t, const float* x, float* y) const {
        using namespace gelu_constants;
        const float g = x[0], square = fminf(g * g, most);
        y[0] = g / (1 + expf(-g * (linear + cubic * square))) * x[1];
    }
};

struct Back {                                          // of gate, up and dy: dgate and dup
    __device__ void operator()(int64_t, const float* x, float* y) const {
        using namespace gelu_constants;
        const float g = x[0], d = x[2], square = fminf(g * g, most);
        const float e = expf(-g * (linear + cubic * square)), s = 1 / (1 + e), gelu = g * s;
        y[0] = d * x[1] * (s + gelu * (fminf(e, finite) * s) * (linear + 3 * cubic * square));
        y[1] = d * gelu;
    }
};

}  // namespace geglu_room
}  // namespace cuda

inline const Kernel geglu_cuda{cuda::gated::run<cuda::geglu_room::Forward>};
inline const Kernel geglu_back_cuda{cuda::gated::back<cuda::geglu_room::Back>};

}}  // namespace qlora
