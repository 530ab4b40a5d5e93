// adamw8.cuh - one step of AdamW in place with both moments in 8 bits: formulas in src/ops/adamw8.cpp, and its bytes,
// as far as adamw.cuh says for the step itself. A warp a block of 256 elements, 8 of them a lane. Both maps go into
// shared memory, with a gap after every 32 entries: a search visits entries 32, 64 and 128 apart, which would all be in
// one bank.
#pragma once
#include "src/cuda/adamw.cuh"
#include "src/tensor/nf4.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace adamw8_room {

constexpr int threads = 256, warps = threads / 32, lane_elements = 8, block = 32 * lane_elements;
constexpr int map_floats = 256 + 256 / 32;

struct Maps { float first[256], second[256]; };        // a parameter of the kernel: 2 KiB of the 4 that there are
struct Moment {                                        // codes {count} and a scale a block
    uint8_t* code;
    float* scale;
};

__device__ inline float entry(const float* map, int i) { return map[i + i / 32]; }

// The search of dynamic_code (src/tensor/nf4.cpp), whose path decides ties.
__device__ inline uint8_t code_of(const float* map, float x) {
    int at = 127, below = 0, above = 255;
    for (int step = 64; step > 0; step /= 2) {
        const bool up = x > entry(map, at);
        (up ? below : above) = at;
        at += up ? step : -step;
    }
    const float found = entry(map, at);
    if (x > found) return uint8_t(x > (entry(map, above) + found) * 0.5f ? above : at);
    return uint8_t(x < (entry(map, below) + found) * 0.5f ? below : at);
}

__device__ inline float warp_max(float v) {
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, v, step);
        v = v < other ? other : v;
    }
    return v;
}

// The 8 elements of a lane from `first`, 32 apart. Everything is read before anything is written.
__device__ inline void update_lane(const adamw_room::Step& s, const float* map1, const float* map2, int64_t first,
                                   int64_t count, const Values& g, float* p, const Moment& moment1,
                                   const Moment& moment2, int64_t b) {
    const float old1 = moment1.scale[b], old2 = moment2.scale[b];
    float param[lane_elements], gradient[lane_elements], m[lane_elements], v[lane_elements], most1 = 0, most2 = 0;
    for (int j = 0; j < lane_elements; ++j) {
        const int64_t i = first + j * 32;
        const bool here = i < count;
        param[j] = here ? p[i] : 0;
        gradient[j] = here ? g[i] : 0;
        m[j] = here ? __fmul_rn(entry(map1, moment1.code[i]), old1) : 0;
        v[j] = here ? __fmul_rn(entry(map2, moment2.code[i]), old2) : 0;
    }
    for (int j = 0; j < lane_elements; ++j) {          // what is not there stays 0
        param[j] = adamw_room::stepped(s, param[j], gradient[j], m[j], v[j]);
        if (most1 < fabsf(m[j])) most1 = fabsf(m[j]);
        if (most2 < v[j]) most2 = v[j];
    }
    most1 = warp_max(most1);
    most2 = warp_max(most2);
    for (int j = 0; j < lane_elements; ++j) {
        const int64_t i = first + j * 32;
        if (i >= count) break;
        p[i] = param[j];
        moment1.code[i] = code_of(map1, most1 > 0 ? m[j] / most1 : 0);
        moment2.code[i] = code_of(map2, most2 > 0 ? v[j] / most2 : 0);
    }
    if (threadIdx.x % 32 != 0) return;
    moment1.scale[b] = most1;                          // read by all lanes before they met in warp_max
    moment2.scale[b] = most2;
}

static __global__ void update(int64_t count, adamw_room::Hyper hyper, Maps maps, Values g, float* p, Moment moment1,
                              Moment moment2) {
    QLORA_SHARED(adamw_room::Step, step, 1);
    QLORA_SHARED(float, map1, map_floats);
    QLORA_SHARED(float, map2, map_floats);
    if (threadIdx.x == 0) *step = adamw_room::step_of(hyper);
    for (int i = int(threadIdx.x); i < 256; i += threads) {
        map1[i + i / 32] = maps.first[i];
        map2[i + i / 32] = maps.second[i];
    }
    __syncthreads();
    const adamw_room::Step s = *step;
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const int64_t blocks = (count + block - 1) / block, stride = int64_t(gridDim.x) * warps;
    for (int64_t b = int64_t(blockIdx.x) * warps + warp; b < blocks; b += stride)
        update_lane(s, map1, map2, b * block + lane, count, g, p, moment1, moment2, b);
}

inline Maps maps() {
    Maps m;
    std::copy_n(dynamic_map_signed(), 256, m.first);
    std::copy_n(dynamic_map_unsigned(), 256, m.second);
    return m;
}

inline void run(const Call& call) {
    const int64_t count = call.node.elements();
    launch("adamw8", update, {grid_for(call, count, threads * lane_elements), threads}, stream_of(call), count,
           adamw_room::hyper_of(call, 6, 7), maps(), values(call, 1), call.result(),
           Moment{call.written<uint8_t>(2), call.written(4)}, Moment{call.written<uint8_t>(3), call.written(5)});
}

}  // namespace adamw8_room
}  // namespace cuda

inline const Kernel adamw8_cuda{cuda::adamw8_room::run};

}}  // namespace qlora
