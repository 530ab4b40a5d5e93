// cross_entropy.cuh - the mean of lse(logits[row]) - logits[row][target] over the rows with a target, and its gradient:
// formulas in src/ops/cross_entropy.cpp. lse {rows} and 1 / count are kept behind the result.
//
// rows_lse and back: a block a row, its threads along the columns. mean: one block, a thread every 256th row, then the
// threads in order. Sums run in floats for 32 exponentials and in double from there on. Targets beyond the columns are
// reported, and their rows left out.
#pragma once
#include "src/cuda/room.cuh"

#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace cross_entropy_room {

constexpr int threads = 256, run_of_floats = 32;

__device__ inline bool is_trained(int32_t target, int64_t columns) { return target >= 0 && target < columns; }

// As block_sum and its like: lanes pairwise, then warps in order; all threads get it.
__device__ inline double block_sum_of_doubles(double v) {
    QLORA_SHARED(double, parts, threads / 32);
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    double sum = 0;
    for (int w = 0; w < threads / 32; ++w) sum += parts[w];
    return sum;
}

__device__ inline float block_max(float v) {
    QLORA_SHARED(float, parts, threads / 32);
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, v, step);
        v = other > v ? other : v;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < threads / 32; ++w) v = parts[w] > v ? parts[w] : v;
    return v;
}

static __global__ void rows_lse(Values logits, const int32_t* targets, int64_t columns, float* lse) {
    const int64_t row = blockIdx.x, first = row * columns;
    if (!is_trained(targets[row], columns)) {          // the whole block
        if (threadIdx.x == 0) lse[row] = 0;
        return;
    }
    float top = __uint_as_float(0xff800000u);          // -infinity; a NaN loses here and shows in the sum
    for (int64_t col = threadIdx.x; col < columns; col += threads) {
        const float z = logits[first + col];
        top = z > top ? z : top;
    }
    top = block_max(top);
    double total = 0;
    for (int64_t col = threadIdx.x; col < columns;) {
        float sum = 0;
        for (int k = 0; k < run_of_floats && col < columns; ++k, col += threads) sum += expf(logits[first + col] - top);
        total += double(sum);
    }
    total = block_sum_of_doubles(total);
    if (threadIdx.x == 0) lse[row] = top + float(log(total));
}

static __global__ void mean(Values logits, const int32_t* targets, int64_t rows, int64_t columns, float* lse,
                            Places y) {
    double total = 0, count = 0;
    for (int64_t row = threadIdx.x; row < rows; row += threads) {
        if (!is_trained(targets[row], columns)) continue;
        total += double(lse[row]) - double(logits[row * columns + targets[row]]);
        count += 1;
    }
    total = block_sum_of_doubles(total);
    count = block_sum_of_doubles(count);
    if (threadIdx.x != 0) return;
    y.set(0, count > 0 ? float(total / count) : 0.0f);
    lse[rows] = count > 0 ? float(1 / count) : 0.0f;
}

static __global__ void gradient(Values logits, const int32_t* targets, const float* lse, Values dy, int64_t rows,
                                int64_t columns, Places dx) {
    const int64_t row = blockIdx.x, first = row * columns;
    const int32_t target = targets[row];
    const bool trained = is_trained(target, columns);
    const float factor = dy[0] * lse[rows], shift = lse[row];
    for (int64_t col = threadIdx.x; col < columns; col += threads) {
        float d = 0;
        if (trained) d = factor * (expf(logits[first + col] - shift) - (col == target ? 1.0f : 0.0f));
        dx.set(first + col, d);
    }
}

inline void run(const Call& call) {
    const Node& x = call.source(0);
    const int64_t columns = last_dim(x), rows = leading(x);
    const int32_t* const targets = call.in<int32_t>(1);
    const Values logits = values(call, 0);
    check_rows(call, targets, rows, std::numeric_limits<int32_t>::min(), columns);
    if (rows > 0)
        launch("cross_entropy", rows_lse, {grid_of(rows), threads}, stream_of(call), logits, targets, columns,
               call.saved());
    launch("cross_entropy", mean, {grid_of(1), threads}, stream_of(call), logits, targets, rows, columns, call.saved(),
           places(call));
}

inline void back(const Call& call) {
    const int64_t columns = last_dim(call.node), rows = leading(call.node);
    if (rows == 0) return;
    launch("cross_entropy_back", gradient, {grid_of(rows), threads}, stream_of(call), values(call, 0),
           call.in<int32_t>(1), call.saved_of(2), values(call, 3), rows, columns, places(call));
}

}  // namespace cross_entropy_room
}  // namespace cuda

inline const Kernel cross_entropy_cuda{cuda::cross_entropy_room::run};
inline const Kernel cross_entropy_back_cuda{cuda::cross_entropy_room::back};

}}  // namespace qlora
