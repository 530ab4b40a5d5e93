// sum.cuh - y {1} = sum of all x, and its gradient, dy[0] everywhere: src/ops/sum.cpp.
//
// Block = a piece of 16384 elements, of which a thread adds 64 in float; threads, and in a second launch of one block
// the pieces, are added in double and in an order that the size alone decides.
#pragma once
#include "src/cuda/map.cuh"
#include "src/cuda/plan/rows.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace sum_room {

constexpr int threads = 256;

// The same sum in every thread.
__device__ inline double block_sum(double v) {
    QLORA_SHARED(double, parts, threads / 32);
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    double sum = 0;
    for (int w = 0; w < threads / 32; ++w) sum += parts[w];
    return sum;
}

static __global__ void sum_pieces(Values x, int64_t count, double* part) {
    const int64_t first = int64_t(blockIdx.x) * piece;
    const int64_t last = first + piece < count ? first + piece : count;
    float sum = 0;
    for (int64_t i = first + threadIdx.x; i < last; i += threads) sum += x[i];
    const double total = block_sum(double(sum));
    if (threadIdx.x == 0) part[blockIdx.x] = total;
}

static __global__ void sum_parts(const double* part, int64_t count, Places y) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += part[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) y.set(0, float(sum));
}

inline void run(const Call& call) {
    const Node& x = call.source(0);
    double* const part = static_cast<double*>(call.scratch);
    launch("sum", sum_pieces, {grid_of(pieces(x)), threads}, stream_of(call), values(call, 0), x.elements(), part);
    launch("sum", sum_parts, {grid_of(1), threads}, stream_of(call), part, pieces(x), places(call));
}

struct Back {
    Values dy;
    __device__ void operator()(int64_t, const float*, float* dx) const { dx[0] = dy[0]; }
};
inline void back(const Call& call) { map<0>(call, Back{values(call, 0)}); }

}  // namespace sum_room
}  // namespace cuda

inline const Kernel sum_cuda{cuda::sum_room::run, cuda::scratch_of(Op::sum)};
inline const Kernel sum_back_cuda{cuda::sum_room::back};

}}  // namespace qlora
