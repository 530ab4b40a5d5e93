// geglu.cuh - y = gelu(gate) * up, the gelu of tanh, and its gradient, {2, elements}: formulas in src/ops/geglu.cpp,
// guards against products of 0 and infinity in src/cpu/exp_constants.h.
#pragma once
#include "src/cpu/exp_constants.h"
#include "src/cuda/map.cuh"

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

inline void run(const Call& call) { map<2>(call, Forward{}); }
inline void back(const Call& call) {
    const int64_t count = call.source(0).elements();
    const Places out = places(call);
    map(call, count,
        Operands<3, 2>{{values(call, 0), values(call, 1), values(call, 2)}, {out, places_from(out, count)}}, Back{});
}

}  // namespace geglu_room
}  // namespace cuda

inline const Kernel geglu_cuda{cuda::geglu_room::run};
inline const Kernel geglu_back_cuda{cuda::geglu_room::back};

}}  // namespace qlora
