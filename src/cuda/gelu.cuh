// gelu.cuh - y = gelu(x) in both of its forms, and its gradient: formulas in src/ops/gelu.cpp, guards against products
// of 0 and infinity in src/cpu/exp_constants.h. The forms are those of geglu too.
#pragma once
#include "src/cpu/exp_constants.h"
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gelu_room {

struct ByTanh {
    __device__ static float value(float x) {
        using namespace gelu_constants;
        return x / (1 + expf(-x * (linear + cubic * fminf(x * x, most))));
    }
    __device__ static float value(float x, float& derivative) {
        using namespace gelu_constants;
        const float square = fminf(x * x, most), e = expf(-x * (linear + cubic * square)), s = 1 / (1 + e),
                    gelu = x * s;
        derivative = s + gelu * (fminf(e, finite) * s) * (linear + 3 * cubic * square);
        return gelu;
    }
};

struct ByErf {
    __device__ static float below(float x) { return 0.5f * erfcf(-0.707106781f * x); }      // Phi(x)
    __device__ static float value(float x) { return x < -normal_constants::far ? 0 : x * below(x); }
    __device__ static float value(float x, float& derivative) {
        using namespace normal_constants;
        derivative = below(x) + (fabsf(x) < far ? density * x * expf(-0.5f * x * x) : 0);
        return value(x);
    }
};

template <class Form> struct Forward {
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = Form::value(x[0]); }
};

template <class Form> struct Back {                    // of x and dy
    __device__ void operator()(int64_t, const float* x, float* dx) const {
        float derivative;
        Form::value(x[0], derivative);
        dx[0] = x[1] * derivative;
    }
};

inline bool by_tanh(const Call& call) { return call.node.attr.get<GeluAttr>().form == Gelu::tanh; }

inline void run(const Call& call) {
    if (by_tanh(call)) map<1>(call, Forward<ByTanh>{});
    else map<1>(call, Forward<ByErf>{});
}
inline void back(const Call& call) {
    if (by_tanh(call)) map<2>(call, Back<ByTanh>{});
    else map<2>(call, Back<ByErf>{});
}

}  // namespace gelu_room
}  // namespace cuda

inline const Kernel gelu_cuda{cuda::gelu_room::run};
inline const Kernel gelu_back_cuda{cuda::gelu_room::back};

}}  // namespace qlora
