// linear_cross_entropy.cuh - nll of targets under the logits x W^T, and the gradient towards x behind it: formulas in
// src/ops/linear_cross_entropy.cpp.
//
//   for each chunk of rows     logits {chunk, vocabulary} = x W^T, f32, in scratch
//     a block a row            maximum and sum of exponentials, nll; then (softmax - onehot), times the slope of a cap
//                              if there is one, in the row's place: bf16 in the first half of its bytes, or f32
//                              with Compute::f32; zeros where the target is negative
//                              kept {chunk, n} = that times W
//
// The device alone knows which rows have targets, so all of them are projected, and chunks are its own:
// CrossEntropyAttr::chunk is for the CPU's caches. A W that products do not read as it is stored is decoded in panels
// of rows, upwards for the logits and downwards for the gradient, so that the one in between is decoded once.
#pragma once
#include "src/cuda/decode.cuh"
#include "src/cuda/gemm.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace linear_cross_entropy_room {

// Bytes of scratch for logits: large enough that reading W again for each chunk costs little beside its products. Of a
// panel: stays in the second-level cache between its decoding and its product. Tests make them small.
inline int64_t most_logits = int64_t(256) << 20, most_panel = int64_t(24) << 20;
constexpr int64_t most_rows = 2048;                    // of a chunk: nothing is gained by more

constexpr float lowest = -3.402823466e+38f;            // below every logit; unlike -infinity it has differences

// As many as there are bytes for: at least one, in whole tiles of products where possible.
inline int64_t lines_within(int64_t bytes, int64_t bytes_a_line, int64_t most) {
    constexpr int64_t tile = 128;
    const int64_t lines = std::max<int64_t>(bytes / bytes_a_line, 1);
    return std::min(lines < tile ? lines : lines / tile * tile, most);
}
inline int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

inline int64_t size_of(DType t) { return t == DType::f32 ? 4 : 2; }

struct Sizes {
    int64_t rows, n, vocabulary;
    int64_t pitch;                                     // floats a row of logits: rows begin at multiples of 32 bytes
    int64_t chunk;                                     // rows of x at a time
    int64_t panel;                                     // rows of W at a time
    bool decoded;                                      // panels are decoded, not read from where W is stored
    DType panel_type, gradient_type;                   // of the logits
    int64_t logits_bytes() const { return rounded_up(chunk * pitch * 4, 256); }
    int64_t panel_bytes() const { return decoded ? rounded_up(panel * n * size_of(panel_type), 256) : 0; }
};

inline Sizes sizes(const Device& device, const GraphImpl& g, const Node& node) {
    const Node &x = g.source(node, 0), &w = g.source(node, 1);
    const DType stored = w.weight ? w.weight->dtype : w.storage;
    Sizes s{};
    s.rows = x.shape[0];
    s.n = x.shape[1];
    s.vocabulary = w.shape[0];
    s.pitch = rounded_up(s.vocabulary, 8);
    s.chunk = lines_within(most_logits, s.pitch * 4, std::min(s.rows, most_rows));
    s.decoded = stored != DType::f32 && stored != DType::bf16;
    s.panel_type = s.decoded ? device.exact ? DType::f32 : DType::bf16 : stored;
    s.gradient_type = device.exact ? DType::f32 : DType::bf16;
    s.panel = s.decoded ? lines_within(most_panel, s.n * size_of(s.panel_type), s.vocabulary) : s.vocabulary;
    return s;
}

// ---- Products of a chunk of x with a panel of W.
inline Product logits_product(const Sizes& s, DType x, int64_t rows, int64_t words) {
    Product p;
    p.m = rows;
    p.n = words;
    p.k = s.n;
    p.a.type = x;
    p.b.type = s.panel_type;
    p.lda = p.ldb = s.n;
    p.ldc = s.pitch;
    return p;
}
// Panels after the first one add to it.
inline Product gradient_product(const Sizes& s, int64_t rows, int64_t words, bool adds) {
    Product p;
    p.m = rows;
    p.n = s.n;
    p.k = words;
    p.a.type = s.gradient_type;
    p.lda = s.gradient_type == DType::f32 ? s.pitch : 2 * s.pitch;
    p.b.type = s.panel_type;
    p.b_across = true;
    p.ldb = p.ldc = s.n;
    p.beta = adds ? 1.0f : 0.0f;
    return p;
}

// What products want beside: the most of whole and last chunks and panels.
inline int64_t product_bytes(const Sizes& s, const GraphImpl& g, DType x) {
    const int64_t rows[] = {s.chunk, s.rows % s.chunk}, words[] = {s.panel, s.vocabulary % s.panel};
    int64_t most = 0;
    for (const int64_t r : rows)
        for (const int64_t w : words) {
            if (r == 0 || w == 0) continue;
            most = std::max(most, product_scratch(g, logits_product(s, x, r, w)));
            most = std::max(most, product_scratch(g, gradient_product(s, r, w, false)));
            most = std::max(most, product_scratch(g, gradient_product(s, r, w, true)));
        }
    return most;
}

inline int64_t scratch(const GraphImpl& g, const Node& node) {
    const Sizes s = sizes(static_cast<const Device&>(*g.backend), g, node);
    return s.logits_bytes() + s.panel_bytes() + product_bytes(s, g, g.source(node, 0).storage);
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

// ---- Running.
// W in panels, of which one at a time is decoded.
struct Panels {
    const Call& call;
    const Sizes& s;
    WeightRef w;
    char* memory;
    int64_t held = -1;
    int64_t count() const { return (s.vocabulary + s.panel - 1) / s.panel; }
    int64_t words(int64_t i) const { return std::min(s.panel, s.vocabulary - i * s.panel); }
    Values operator()(int64_t i) {
        if (!s.decoded) return {w.data, s.panel_type};
        if (held != i) decode_rows(call, w, i * s.panel, words(i), {memory, s.panel_type});
        held = i;
        return {memory, s.panel_type};
    }
};

inline void run(const Call& call) {
    const CrossEntropyAttr attr = call.node.attr.get<CrossEntropyAttr>();
    const Sizes s = sizes(device_of(call), call.graph, call.node);
    const int32_t* targets = call.in<int32_t>(2);
    check_rows(call, targets, s.rows, INT32_MIN, s.vocabulary);            // negative ones are rows without a target
    float* logits = static_cast<float*>(call.scratch);                     // {chunk, pitch}
    char* const memory = static_cast<char*>(call.scratch) + s.logits_bytes();
    void* const beside = memory + s.panel_bytes();
    Panels panels{call, s, call.matrix(1), memory};
    const Values x = values(call, 0);
    const int threads = s.vocabulary > 4096 ? 512 : 128;
    for (int64_t start = 0; start < s.rows; start += s.chunk) {
        const int64_t rows = std::min(s.chunk, s.rows - start);
        for (int64_t i = 0; i < panels.count(); ++i) {
            Product p = logits_product(s, x.type, rows, panels.words(i));
            p.a.data = static_cast<const char*>(x.data) + start * s.n * size_of(x.type);
            p.b = panels(i);
            p.c = {logits + i * s.panel, DType::f32};
            product(call, p, beside);
        }
        launch("linear_cross_entropy", row_loss, {grid_of(rows), threads}, stream_of(call),
               RowLoss{logits, s.pitch, s.vocabulary, targets, places(call), start, attr.cap, attr.with_grad,
                       s.gradient_type});
        for (int64_t i = panels.count() - 1; attr.with_grad && i >= 0; --i) {
            Product p = gradient_product(s, rows, panels.words(i), i < panels.count() - 1);
            p.a.data = reinterpret_cast<const char*>(logits) + i * s.panel * size_of(s.gradient_type);
            p.b = panels(i);
            p.c = {call.saved() + start * s.n, DType::f32};
            product(call, p, beside);
        }
        device_of(call).counted.add(2 * rows * s.vocabulary * s.n * (attr.with_grad ? 2 : 1),
                                    panels.w.bytes() * (attr.with_grad ? 2 : 1));
    }
}

}  // namespace linear_cross_entropy_room
}  // namespace cuda

const Kernel linear_cross_entropy_cuda{cuda::linear_cross_entropy_room::run, cuda::linear_cross_entropy_room::scratch};

}}  // namespace qlora
