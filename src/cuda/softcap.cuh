// softcap.cuh - y = cap * tanh(x / cap) and its gradient, from y: src/ops/softcap.cpp.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace softcap_room {

struct Forward {
    float cap;
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = cap * tanhf(x[0] / cap); }
};

struct Back {                                          // of y and dy
    float cap;
    __device__ void operator()(int64_t, const float* x, float* dx) const {
        const float t = x[0] / cap;
        dx[0] = x[1] * (1 - t * t);
    }
};

inline void run(const Call& call) { map<1>(call, Forward{call.node.attr.get<SoftcapAttr>().cap}); }
inline void back(const Call& call) { map<2>(call, Back{call.node.attr.get<SoftcapAttr>().cap}); }

}  // namespace softcap_room
}  // namespace cuda

inline const Kernel softcap_cuda{cuda::softcap_room::run};
inline const Kernel softcap_back_cuda{cuda::softcap_room::back};

}}  // namespace qlora
