// clamp.cuh - y = min(max(x, low), high) and its gradient: src/ops/clamp.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace clamp_room {

struct Forward {
    ClampAttr a;
    __device__ void operator()(int64_t, const float* x, float* y) const {
        y[0] = x[0] < a.low ? a.low : x[0] > a.high ? a.high : x[0];             // NaN stays
    }
};

struct Back {                                          // of x and dy
    ClampAttr a;
    __device__ void operator()(int64_t, const float* x, float* dx) const {
        dx[0] = a.low <= x[0] && x[0] <= a.high ? x[1] : 0;
    }
};

inline void run(const Call& call) { map<1>(call, Forward{call.node.attr.get<ClampAttr>()}); }
inline void back(const Call& call) { map<2>(call, Back{call.node.attr.get<ClampAttr>()}); }

}  // namespace clamp_room
}  // namespace cuda

inline const Kernel clamp_cuda{cuda::clamp_room::run};
inline const Kernel clamp_back_cuda{cuda::clamp_room::back};

}}  // namespace qlora
