// linear_cross_entropy.cuh - nll of targets under the logits x W^T, and the gradient towards x behind it: formulas in
// src/ops/linear_cross_entropy.cpp.
//
//   the rows with a target are listed; for each chunk of the list
//                              gathered {chunk, n} = their x
//                              logits {chunk, vocabulary} = that times W^T, f32
//     a block a row            maximum and sum of exponentials, nll; then (softmax - onehot), times the slope of a cap
//                              if there is one, in the row's place: bf16 in the first half of its bytes, or f32
//                              with Compute::f32
//                              gathered = that times W, whose rows go to those of kept {rows, n}
//
// The device alone knows how many rows have targets. As much is started as all of them would need: the rows of a chunk
// that count are a number on the device (Product::live), and kernels leave out the tiles behind them. Every chunk has
// the same size, so that a row's bytes do not depend on the place that it got. Chunks are the device's own, unless
// CrossEntropyAttr::chunk asks for less.
#pragma once
#include "src/cuda/plan/linear_cross_entropy.h"
#include "src/cuda/qmatmul.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace linear_cross_entropy_room {

constexpr float lowest = -3.402823466e+38f;            // below every logit; unlike -infinity it has differences

// ---- The rows with a target: trained {rows}, in order, and how many of each chunk there are. One block, a stretch of
// rows a thread.
static __global__ void __launch_bounds__(256) list_trained(const int32_t* targets, Sizes s, int32_t* trained,
                                                           int32_t* live) {
    QLORA_SHARED(int64_t, counts, 256);
    const int64_t each = (s.rows + blockDim.x - 1) / blockDim.x, first = int64_t(threadIdx.x) * each,
                  last = first + each < s.rows ? first + each : s.rows;
    const auto has_target = [&](int64_t row) { return targets[row] >= 0 && targets[row] < s.vocabulary; };
    int64_t count = 0;
    for (int64_t row = first; row < last; ++row) count += has_target(row);
    counts[threadIdx.x] = count;
    __syncthreads();
    int64_t at = 0, all = 0;
    for (unsigned t = 0; t < blockDim.x; ++t) {
        if (t == threadIdx.x) at = all;
        all += counts[t];
    }
    for (int64_t row = first; row < last; ++row)
        if (has_target(row)) trained[at++] = int32_t(row);
    const int64_t chunks = (s.rows + s.chunk - 1) / s.chunk;
    for (int64_t c = threadIdx.x; c < chunks; c += blockDim.x) {
        const int64_t left = all - c * s.chunk;
        live[c] = int32_t(left < 0 ? 0 : left < s.chunk ? left : s.chunk);
    }
}

// Block x = a row of the list, if there are as many: `bytes` of row list[x] of one side to row x of the other.
static __global__ void __launch_bounds__(256) move_rows(const int32_t* list, const int32_t* live, int64_t bytes,
                                                        const unsigned char* all, unsigned char* some, bool back) {
    if (int64_t(blockIdx.x) >= *live) return;
    const unsigned char* from = all + list[blockIdx.x] * bytes;
    unsigned char* to = some + blockIdx.x * bytes;
    if (back) {
        to = const_cast<unsigned char*>(from);
        from = some + blockIdx.x * bytes;
    }
    if ((reinterpret_cast<size_t>(from) | reinterpret_cast<size_t>(to) | size_t(bytes)) % 16 == 0) {
        for (int64_t i = threadIdx.x; i < bytes / 16; i += blockDim.x)
            reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    } else {
        for (int64_t i = threadIdx.x; i < bytes / 2; i += blockDim.x)
            reinterpret_cast<uint16_t*>(to)[i] = reinterpret_cast<const uint16_t*>(from)[i];
    }
}

// ---- A row of logits.
__device__ inline float block_max(float v) {           // in every thread; blockDim.x is a multiple of 32
    QLORA_SHARED(float, parts, 32);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
    for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    float most = parts[0];
    for (int w = 1; w < warps; ++w) most = fmaxf(most, parts[w]);
    return most;
}

// Logits j to j + 3 under the cap, `lowest` beyond the vocabulary.
__device__ inline void four_logits(const float* z, int64_t j, int64_t vocabulary, float cap, float* v) {
    const uint4 word = *reinterpret_cast<const uint4*>(z + j);
    v[0] = __uint_as_float(word.x);
    v[1] = __uint_as_float(word.y);
    v[2] = __uint_as_float(word.z);
    v[3] = __uint_as_float(word.w);
    for (int k = 0; k < 4; ++k) {
        if (cap > 0) v[k] = cap * tanhf(v[k] / cap);
        if (j + k >= vocabulary) v[k] = lowest;
    }
}

// Four numbers in the place of logits, or in 16 bits in the first half of their row.
__device__ inline void store_four(float* z, DType type, int64_t j, const float* v) {
    if (type == DType::f32) {
        *reinterpret_cast<uint4*>(z + j) = make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]),
                                                      __float_as_uint(v[2]), __float_as_uint(v[3]));
        return;
    }
    uint32_t* pairs = reinterpret_cast<uint32_t*>(z) + j / 2;
    pairs[0] = bf16_bits(v[0]) | bf16_bits(v[1]) << 16;
    pairs[1] = bf16_bits(v[2]) | bf16_bits(v[3]) << 16;
}

struct RowLoss {
    float* logits;                                     // {rows, pitch}
    int64_t pitch, vocabulary;
    const int32_t *targets, *trained, *live;           // row x is row trained[x], and one of *live
    float* nll;
    float cap;
    bool with_grad;
    DType type;                                        // of the gradient
};

// Block x = row of the chunk. The gradient in 16 bits ends before what is still to be read: with q logits a turn, turn
// t reads floats q t to q (t + 1) and writes the place of floats q t / 2 to q (t + 1) / 2, so that one barrier is
// enough.
static __global__ void __launch_bounds__(512) row_loss(RowLoss r) {
    if (int64_t(blockIdx.x) >= *r.live) return;
    const int64_t row = r.trained[blockIdx.x], turn = int64_t(blockDim.x) * 4, mine = int64_t(threadIdx.x) * 4;
    float* z = r.logits + blockIdx.x * r.pitch;
    const int64_t target = r.targets[row];
    float most = lowest, sum = 0, v[4];
    for (int64_t j = mine; j < r.vocabulary; j += turn) {
        four_logits(z, j, r.vocabulary, r.cap, v);
        const float before = most;
        most = fmaxf(most, fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3])));
        sum *= expf(before - most);
        sum += (expf(v[0] - most) + expf(v[1] - most)) + (expf(v[2] - most) + expf(v[3] - most));
    }
    const float maximum = block_max(most);
    sum = block_sum(sum * expf(most - maximum));
    if (threadIdx.x == 0) {
        const float chosen = r.cap > 0 ? r.cap * tanhf(z[target] / r.cap) : z[target];
        r.nll[row] = logf(sum) + maximum - chosen;
    }
    if (!r.with_grad) return;
    const float share = 1 / sum;
    for (int64_t start = 0; start < r.vocabulary; start += turn) {
        const int64_t j = start + mine;
        const bool inside = j < r.vocabulary;
        if (inside) {
            four_logits(z, j, r.vocabulary, r.cap, v);
            for (int k = 0; k < 4; ++k) {
                const float t = r.cap > 0 ? v[k] / r.cap : 0.0f;
                const float p = expf(v[k] - maximum) * share;
                v[k] = (j + k == target ? p - 1 : p) * (1 - t * t);
            }
        }
        __syncthreads();
        if (inside) store_four(z, r.type, j, v);
    }
}

inline void run(const Call& call) {
    const CrossEntropyAttr attr = call.node.attr.get<CrossEntropyAttr>();
    const Sizes s = sizes(device_of(call), call.graph, call.node);
    const WeightRef w = call.matrix(1);
    const int32_t* targets = call.in<int32_t>(2);
    check_rows(call, targets, s.rows, INT32_MIN, s.vocabulary);                // negative: rows without a target
    char* const memory = static_cast<char*>(call.scratch);
    float* const logits = reinterpret_cast<float*>(memory);
    unsigned char* const gathered = reinterpret_cast<unsigned char*>(memory + s.logits());
    int32_t* const trained = reinterpret_cast<int32_t*>(memory + s.logits() + s.gathered());
    int32_t* const live = trained + s.rows;
    Call products = call;
    products.scratch = memory + s.bytes();
    const Values x = values(call, 0);
    check(cudaMemsetAsync(call.out, 0, size_t(call.node.bytes()), stream_of(call).get()), "clear");
    launch("linear_cross_entropy", list_trained, {grid_of(1), 256}, stream_of(call), targets, s, trained, live);
    const auto move = [&](int64_t chunk, DType type, void* all, bool back) {
        launch("linear_cross_entropy", move_rows, {grid_of(s.chunk), 256}, stream_of(call), trained + chunk * s.chunk,
               live + chunk, bytes_of(type, s.n), static_cast<unsigned char*>(all), gathered, back);
    };
    for (int64_t chunk = 0; chunk < s.chunks(); ++chunk) {
        move(chunk, x.type, call.src[0], false);
        Product p = logits_product(s, x.type);
        p.a.data = gathered;
        p.c = {logits, DType::f32};
        p.live = live + chunk;
        product_with_stored(products, p, w, false);
        launch("linear_cross_entropy", row_loss, {grid_of(s.chunk), s.vocabulary > 4096 ? 512 : 128}, stream_of(call),
               RowLoss{logits, s.pitch, s.vocabulary, targets, trained + chunk * s.chunk, live + chunk, call.result(),
                       attr.cap, attr.with_grad, s.gradient});
        if (!attr.with_grad) continue;
        p = gradient_product(s);
        p.a.data = logits;
        p.c = {gathered, DType::f32};
        p.live = live + chunk;
        product_with_stored(products, p, w, true);
        move(chunk, DType::f32, call.saved(), true);
    }
}

}  // namespace linear_cross_entropy_room
}  // namespace cuda

inline const Kernel linear_cross_entropy_cuda{
    cuda::linear_cross_entropy_room::run, cuda::scratch_of(Op::linear_cross_entropy)};

}}  // namespace qlora
