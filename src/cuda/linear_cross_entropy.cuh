// linear_cross_entropy.cuh - nll of targets under the logits x W^T, and the gradient towards x behind it: formulas in
// src/ops/linear_cross_entropy.cpp.
//
//   for each chunk of rows     logits {chunk, vocabulary} = x W^T, f32, in scratch
//     a block a row            maximum and sum of exponentials, nll; then (softmax - onehot), times the slope of a cap
//                              if there is one, in the row's place: bf16 in the first half of its bytes, or f32
//                              with Compute::f32; zeros where the target is negative
//                              kept {chunk, n} = that times W
//
// The device alone knows which rows have targets, so all of them are projected.
#pragma once
#include "src/cuda/qmatmul.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace linear_cross_entropy_room {

// Bytes of logits in scratch: so many that reading W again for each chunk costs little beside its products. Tests make
// it small.
inline int64_t most_logits = int64_t(256) << 20;
constexpr int64_t most_rows = 2048;                    // of a chunk: nothing is gained by more

constexpr float lowest = -3.402823466e+38f;            // below every logit; unlike -infinity it has differences

struct Sizes {
    int64_t rows, n, vocabulary;
    int64_t pitch;                                     // floats a row of logits: rows begin at multiples of 32 bytes
    int64_t chunk;                                     // rows of x at a time, whole tiles of products if it can be
    DType gradient;                                    // of the logits: how it is stored for the second product
    int64_t bytes() const { return gemm_room::whole(chunk * pitch * 4); }
};

inline Sizes sizes(const Device& device, const GraphImpl& g, const Node& node) {
    constexpr int64_t tile = 128;
    const Node &x = g.source(node, 0), &w = g.source(node, 1);
    Sizes s{};
    s.rows = x.shape[0];
    s.n = x.shape[1];
    s.vocabulary = w.shape[0];
    s.pitch = gemm_room::ceil_div(s.vocabulary, 8) * 8;
    const int64_t asked = node.attr.get<CrossEntropyAttr>().chunk;
    const int64_t most = std::clamp<int64_t>(most_logits / 4 / s.pitch, 1, asked > 0 ? asked : most_rows);
    s.chunk = std::min(most < tile ? most : most / tile * tile, s.rows);
    s.gradient = device.exact ? DType::f32 : DType::bf16;
    return s;
}

// ---- The products of a chunk, without memory.
inline Product logits_product(const Sizes& s, DType x, int64_t rows) {         // times W^T
    Product p;
    p.m = rows, p.n = s.vocabulary, p.k = s.n;
    p.a.type = x, p.lda = s.n;
    p.ldc = s.pitch;
    return p;
}
inline Product gradient_product(const Sizes& s, int64_t rows) {                // times W
    Product p;
    p.m = rows, p.n = s.n, p.k = s.vocabulary;
    p.a.type = s.gradient, p.lda = s.gradient == DType::f32 ? s.pitch : 2 * s.pitch;
    p.ldc = s.n;
    return p;
}

inline int64_t scratch(const GraphImpl& g, const Node& node) {
    const Sizes s = sizes(static_cast<const Device&>(*g.backend), g, node);
    const WeightRef w = qmatmul_room::weight_of(g.source(node, 1));
    const DType x = g.source(node, 0).storage;
    const Engine engine = engine_of(g);
    int64_t most = 0;
    for (const int64_t rows : {s.chunk, s.rows % s.chunk}) {                   // few rows are computed another way
        if (rows == 0) continue;
        most = std::max({most, product_with_stored_scratch(engine, logits_product(s, x, rows), w, false),
                         product_with_stored_scratch(engine, gradient_product(s, rows), w, true)});
    }
    return s.bytes() + most;
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
    const int32_t* targets;
    Places nll;                                        // nll[0] is of row `first`
    int64_t first;
    float cap;
    bool with_grad;
    DType type;                                        // of the gradient
};

// Block x = row. The gradient in 16 bits ends before what is still to be read: with q logits a turn, turn t reads
// floats q t to q (t + 1) and writes the place of floats q t / 2 to q (t + 1) / 2, so that one barrier is enough.
static __global__ void __launch_bounds__(512) row_loss(RowLoss r) {
    const int64_t row = blockIdx.x, turn = int64_t(blockDim.x) * 4, mine = int64_t(threadIdx.x) * 4;
    float* z = r.logits + row * r.pitch;
    const int64_t target = r.targets[r.first + row];
    const float zeros[4] = {};
    if (target < 0 || target >= r.vocabulary) {        // the latter is a fault by now
        if (threadIdx.x == 0) r.nll.set(r.first + row, 0);
        for (int64_t j = mine; r.with_grad && j < r.vocabulary; j += turn) store_four(z, r.type, j, zeros);
        return;
    }
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
        r.nll.set(r.first + row, logf(sum) + maximum - chosen);
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
    float* logits = static_cast<float*>(call.scratch);
    Call products = call;
    products.scratch = static_cast<char*>(call.scratch) + s.bytes();
    const Values x = values(call, 0);
    for (int64_t start = 0; start < s.rows; start += s.chunk) {
        const int64_t rows = std::min(s.chunk, s.rows - start);
        Product p = logits_product(s, x.type, rows);
        p.a.data = static_cast<const char*>(x.data) + bytes_of(x.type, start * s.n);
        p.c = {logits, DType::f32};
        product_with_stored(products, p, w, false);
        launch("linear_cross_entropy", row_loss, {grid_of(rows), s.vocabulary > 4096 ? 512 : 128}, stream_of(call),
               RowLoss{logits, s.pitch, s.vocabulary, targets, places(call), start, attr.cap, attr.with_grad,
                       s.gradient});
        if (!attr.with_grad) continue;
        p = gradient_product(s, rows);
        p.a.data = logits;
        p.c = {call.saved() + start * s.n, DType::f32};
        product_with_stored(products, p, w, true);
    }
}

}  // namespace linear_cross_entropy_room
}  // namespace cuda

inline const Kernel linear_cross_entropy_cuda{
    cuda::linear_cross_entropy_room::run, cuda::linear_cross_entropy_room::scratch};

}}  // namespace qlora
