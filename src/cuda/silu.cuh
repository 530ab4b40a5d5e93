// silu.cuh - y = x / (1 + exp(-x)) and its gradient: src/ops/silu.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace silu_room {

struct Forward {
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = x[0] / (1 + expf(-x[0])); }
};

struct Back {                                          // of x and dy
    __device__ void operator()(int64_t, const float* x, float* dx) const {
        const float s = 1 / (1 + expf(-x[0]));
        dx[0] = x[1] * s * (1 + x[0] * (1 - s));
    }
};

inline void run(const Call& call) { map<1>(call, Forward{}); }
inline void back(const Call& call) { map<2>(call, Back{}); }

}  // namespace silu_room
}  // namespace cuda

inline const Kernel silu_cuda{cuda::silu_room::run};
inline const Kernel silu_back_cuda{cuda::silu_room::back};

}}  // namespace qlora
