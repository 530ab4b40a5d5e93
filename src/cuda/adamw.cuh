// adamw.cuh - one step of AdamW in place: formulas in src/ops/adamw.cpp. A thread an element. The numbers of the step
// come from hyper and norm, which are on the device: the first thread of each block computes them for all.
//
// The bytes are those of the CPU's room where its compiler fuses nothing (x86-64): every product and every sum is
// rounded by itself, in the same order; quotients and roots are correctly rounded on both. Only beta^t may differ, in
// the last bits of a double: between libraries pow() differs by so much. The rounding to float that follows hides that
// but for one t in some ten thousand, where rate or root is the neighbouring float.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace adamw_room {

constexpr int threads = 256;

struct Hyper {                                         // what a step depends on
    Values numbers, norm;                              // {lr, t, factor, 0}; norm.data is null: no clipping
    AdamWAttr attr;
};
struct Step { float rate, root, keep, factor, rise1, rise2, beta2, epsilon; };   // rise: 1 - beta

inline Hyper hyper_of(const Call& call, int norm, int hyper) {
    const AdamWAttr attr = call.node.attr.get<AdamWAttr>();
    return {values(call, hyper), call.has(norm) && attr.max_norm > 0 ? values(call, norm) : Values{}, attr};
}

__device__ inline Step step_of(const Hyper& h) {
    const AdamWAttr& a = h.attr;
    const double lr = double(h.numbers[0]), t = double(h.numbers[1]), correction1 = 1 - pow(double(a.beta1), t),
                 correction2 = 1 - pow(double(a.beta2), t);
    const float given = h.numbers[2];
    float clip = 1;
    if (h.norm.data) {
        const float wanted = a.max_norm / __fadd_rn(__fmul_rn(h.norm[0], given), 1e-6f);
        if (wanted < 1) clip = wanted;                 // a norm that is not a number does not clip
    }
    // lr * weight_decay, of floats, is exact in double
    return {float(lr / correction1), float(sqrt(correction2)), float(1 - lr * double(a.weight_decay)),
            __fmul_rn(given, clip),  1 - a.beta1,              1 - a.beta2,
            a.beta2,                 a.epsilon};
}

// Moves both moments; returns the new param.
__device__ inline float stepped(const Step& s, float p, float g, float& m, float& v) {
    const float scaled = __fmul_rn(g, s.factor);
    m = __fadd_rn(m, __fmul_rn(__fadd_rn(scaled, -m), s.rise1));
    v = __fadd_rn(__fmul_rn(v, s.beta2), __fmul_rn(__fmul_rn(scaled, scaled), s.rise2));
    const float change = __fmul_rn(s.rate, m) / __fadd_rn(sqrtf(v) / s.root, s.epsilon);
    return __fadd_rn(__fmul_rn(p, s.keep), -change);
}

static __global__ void update(int64_t count, Hyper hyper, Values g, float* p, float* m, float* v) {
    QLORA_SHARED(Step, step, 1);
    if (threadIdx.x == 0) *step = step_of(hyper);
    __syncthreads();
    const Step s = *step;
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
        float first = m[i], second = v[i];
        p[i] = stepped(s, p[i], g[i], first, second);
        m[i] = first;
        v[i] = second;
    }
}

inline void run(const Call& call) {
    const int64_t count = call.node.elements();
    launch("adamw", update, {grid_for(call, count, threads), threads}, stream_of(call), count, hyper_of(call, 4, 5),
           values(call, 1), call.result(), call.written(2), call.written(3));
}

}  // namespace adamw_room
}  // namespace cuda

inline const Kernel adamw_cuda{cuda::adamw_room::run};

}}  // namespace qlora
