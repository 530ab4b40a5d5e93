// dora.cuh - weights as magnitude and direction: formulas in src/ops/dora.cpp.
//
//   dora_norm      n[o] = || row o of W + s B A ||: a block for four rows, a thread every 256th column of them, so
//                  that an element of A is read once for four rows. No dense copy of W exists.
//   dora_scale     y = z m / n: a thread a column, whose factor it keeps, down every gridDim.y-th row
//   dora_scale_dm  dm[o] = sum over rows of dy z / n[o]: a block 32 columns; warp w adds rows w, w + 16, ..., then the
//                  warps are added in order
#pragma once
#include "src/cuda/decode.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace dora_room {

constexpr int threads = 256, group = 4, dm_warps = 16;

// weights [group][rank] = s B. Rows beyond the end count as zeros and are dropped. Decoding, a long piece of code,
// stands there once: in a loop that is not unrolled.
static __global__ void norms(WeightRef w, Values a, Values b, int64_t rank, float scale, Places n) {
    QLORA_DYNAMIC_SHARED(float, weights);
    QLORA_SHARED(float, decoded, group * threads);     // each thread's own: an array that a loop may index
    const int64_t first = int64_t(blockIdx.x) * group;
    const int rows = int(w.rows - first < group ? w.rows - first : group);
    for (int64_t i = threadIdx.x; i < group * rank; i += threads)
        weights[i] = i < rows * rank ? scale * b[first * rank + i] : 0.0f;
    __syncthreads();
    float sum[group] = {};
    for (int64_t col = threadIdx.x; col < w.cols; col += threads) {
        for (int j = 0; j < rows; ++j)
            decoded[j * threads + int(threadIdx.x)] = element(w, (first + j) * w.cols + col);
        float v[group];
        for (int j = 0; j < group; ++j) v[j] = j < rows ? decoded[j * threads + int(threadIdx.x)] : 0.0f;
        for (int64_t r = 0; r < rank; ++r) {
            const float x = a[r * w.cols + col];
            for (int j = 0; j < group; ++j) v[j] += weights[j * rank + r] * x;
        }
        for (int j = 0; j < group; ++j) sum[j] += v[j] * v[j];
    }
    for (int j = 0; j < group; ++j) {
        const float total = block_sum(sum[j]);
        if (threadIdx.x == 0 && j < rows) n.set(first + j, sqrtf(total));
    }
}

static __global__ void scale_columns(Values z, Values m, Values n, int64_t rows, int64_t out, Places y) {
    const int64_t o = int64_t(blockIdx.x) * threads + threadIdx.x;
    if (o >= out) return;
    const float norm = n[o], factor = norm > 0 ? m[o] / norm : 0;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) y.set(r * out + o, z[r * out + o] * factor);
}

static __global__ void sum_rows(Values dy, Values z, Values n, int64_t rows, int64_t out, Places dm) {
    QLORA_SHARED(float, parts, dm_warps * 32);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const int64_t o = int64_t(blockIdx.x) * 32 + lane;
    float sum = 0;
    if (o < out) {
        for (int64_t r = warp; r < rows; r += dm_warps) sum += dy[r * out + o] * z[r * out + o];
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0 || o >= out) return;
    sum = 0;
    for (int w = 0; w < dm_warps; ++w) sum += parts[w * 32 + lane];
    const float norm = n[o];
    dm.set(o, norm > 0 ? sum / norm : 0.0f);
}

inline void norm(const Call& call) {
    const WeightRef w = call.matrix(0);
    const int64_t rank = call.source(1).shape[0];
    launch("dora_norm", norms, {grid_of((w.rows + group - 1) / group), threads, group * rank * 4}, stream_of(call), w,
           values(call, 1), values(call, 2), rank, call.node.attr.get<ScaleAttr>().factor, places(call));
}

inline void scale(const Call& call) {
    const int64_t rows = leading(call.node), out = last_dim(call.node), blocks = (out + threads - 1) / threads;
    if (rows == 0) return;
    const int64_t strips = int64_t(device_of(call).multiprocessors) * 8 / blocks + 1;      // fill the device
    launch("dora_scale", scale_columns, {grid_of(blocks, std::min<int64_t>({rows, strips, 65535})), threads},
           stream_of(call), values(call, 0), values(call, 1), values(call, 2), rows, out, places(call));
}

inline void dm(const Call& call) {
    const int64_t out = call.node.shape[0], rows = leading(call.source(0));
    launch("dora_scale_dm", sum_rows, {grid_of((out + 31) / 32), dm_warps * 32}, stream_of(call), values(call, 0),
           values(call, 1), values(call, 2), rows, out, places(call));
}

}  // namespace dora_room
}  // namespace cuda

inline const Kernel dora_norm_cuda{cuda::dora_room::norm};
inline const Kernel dora_scale_cuda{cuda::dora_room::scale};
inline const Kernel dora_scale_dm_cuda{cuda::dora_room::dm};

}}  // namespace qlora
