// clip.cuh - global_norm: y {1} = sqrt(sum of x^2), with the additions of src/ops/clip.cpp and so its bytes: eight
// interleaved sums in double a task of 16384 elements, then the tasks in order. Squares of floats are exact in double,
// fused into the addition or not.
//
// squares: eight threads a task, one of its sums each; so a warp reads four runs of 32 bytes at a time. total: one
// block, whose first thread adds what the others fetch.
#pragma once
#include "src/cuda/plan/rows.h"
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace clip_room {

constexpr int sums = 8, square_threads = 64, total_threads = 256, piece_doubles = 256;

// Source is Values or, without a branch at every load, const float*.
template <class Source> __global__ void squares(int64_t count, int64_t tasks, Source x, double* part) {
    constexpr int loads = 16;                          // in flight at once: there are few threads
    const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, task = thread / sums;
    const int64_t end = (task + 1) * task_floats < count ? (task + 1) * task_floats : count;
    int64_t i = task * task_floats + thread % sums;
    double s = 0;
    for (; i + (loads - 1) * sums < end; i += loads * sums) {
        float loaded[loads];
        for (int k = 0; k < loads; ++k) loaded[k] = x[i + k * sums];
        for (int k = 0; k < loads; ++k) s += double(loaded[k]) * double(loaded[k]);
    }
    for (; i < end; i += sums) s += double(x[i]) * double(x[i]);
    s += __shfl_xor_sync(0xffffffffu, s, 4);           // ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
    s += __shfl_xor_sync(0xffffffffu, s, 2);
    s += __shfl_xor_sync(0xffffffffu, s, 1);
    if (thread % sums == 0 && task < tasks) part[task] = s;
}

static __global__ void total(int64_t tasks, const double* part, Places y) {
    QLORA_SHARED(double, piece, piece_doubles);
    double sum = 0;
    for (int64_t first = 0; first < tasks; first += piece_doubles) {
        const int n = int(tasks - first < piece_doubles ? tasks - first : piece_doubles);
        __syncthreads();                               // the first thread is done with the previous piece
        for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) piece[i] = part[first + i];
        __syncthreads();
        if (threadIdx.x == 0)
            for (int i = 0; i < n; ++i) sum += piece[i];
    }
    if (threadIdx.x == 0) y.set(0, float(sqrt(sum)));
}

inline void run(const Call& call) {
    const int64_t count = call.source(0).elements(), parts = tasks(call.source(0));
    double* const part = static_cast<double*>(call.scratch);
    const Values x = values(call, 0);
    const Launch l{grid_of((parts * sums + square_threads - 1) / square_threads), square_threads};
    if (x.type == DType::f32)
        launch("global_norm", squares<const float*>, l, stream_of(call), count, parts, call.in(0), part);
    else launch("global_norm", squares<Values>, l, stream_of(call), count, parts, x, part);
    launch("global_norm", total, {grid_of(1), total_threads}, stream_of(call), parts, part, places(call));
}

}  // namespace clip_room
}  // namespace cuda

inline const Kernel global_norm_cuda{cuda::clip_room::run, cuda::scratch_of(Op::global_norm)};

}}  // namespace qlora
