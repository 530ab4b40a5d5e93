// gemm.cuh - matrix products: C {m, n} = alpha * A {m, k} B {k, n} + beta * D, whose factors are stored in 16 or 32 bits
// with either of their dimensions contiguous.
//
// Two engines. With Compute::f32, and for what the other one does not take, a block sums a tile of 64 x 64 in f32, a
// thread 4 x 4 of it, in order of the inner dimension. Otherwise tensor cores (gemm_mma.cuh): factors rounded to bf16,
// sums in f32, the inner dimension in stretches that depend on the shapes alone.
// Rooms count the work: device_of(call).counted.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

struct Product {
    int64_t m = 0, n = 0, k = 0;
    Values a;                                          // (i, x) at a[i * lda + x], or a[x * lda + i] when across
    int64_t lda = 0;
    bool a_across = false;
    Values b;    // (x, j) at b[j * ldb + x], as W^T of a stored W {n, k}; or b[x * ldb + j] when across
    int64_t ldb = 0;
    bool b_across = false;
    Places c;                                          // (i, j) at c[i * ldc + j]
    int64_t ldc = 0;
    float alpha = 1, beta = 0;                         // beta 0: what D holds is not read, be it NaN
    Values d;                                          // of C's shape; without data: C itself
    int64_t ldd = 0;
};

// What a product runs on, as the call says or as a test does.
struct Engine {
    const Stream& stream;
    int capability = 0;
    bool exact = true;
};
inline Engine engine_of(const Call& call) {
    const Device& device = device_of(call);
    return {device.stream, device.capability, device.exact};
}

namespace gemm_room {

constexpr int tile = 64, deep = 16, side = 4, threads = (tile / side) * (tile / side);
constexpr int line = tile + 1;                         // in shared memory: neighbours of both dimensions in other banks

// What C becomes from its sum.
struct Finish {
    Places c;
    int64_t ldc;
    float alpha, beta;
    Values d;
    int64_t ldd;
    __device__ void operator()(int64_t i, int64_t j, float sum) const {
        float value = alpha * sum;
        if (beta != 0) value += beta * d[i * ldd + j];
        c.set(i * ldc + j, value);
    }
};
inline Finish finish_of(const Product& p) {
    const bool itself = !p.d.data;
    return {p.c, p.ldc, p.alpha, p.beta, itself ? Values{p.c.data, p.c.type} : p.d, itself ? p.ldc : p.ldd};
}

// to[x * line + o] = the element of line first + o and inner index x0 + x, 0 beyond the matrix.
__device__ inline void fetch(float* to, const Values& from, int64_t ld, bool across, int64_t first, int64_t lines,
                             int64_t x0, int64_t k) {
#pragma unroll
    for (int i = int(threadIdx.x); i < tile * deep; i += threads) {
        const int o = across ? i % tile : i / deep, x = across ? i / tile : i % deep;
        const int64_t at = first + o, inner = x0 + x;
        const bool inside = at < lines && inner < k;
        to[x * line + o] = inside ? from[across ? inner * ld + at : at * ld + inner] : 0.0f;
    }
}

// Block = a tile of C, thread (ty, tx) = its rows ty + 16 i and columns tx + 16 j.
static __global__ void __launch_bounds__(threads) simt(int64_t m, int64_t n, int64_t k, Values a, int64_t lda,
                                                       bool a_across, Values b, int64_t ldb, bool b_across, Finish put) {
    QLORA_SHARED(float, left, deep * line);
    QLORA_SHARED(float, right, deep * line);
    constexpr int apart = tile / side;
    const int64_t tiles_n = (n + tile - 1) / tile;
    const int64_t i0 = blockIdx.x / tiles_n * tile, j0 = blockIdx.x % tiles_n * tile;
    const int ty = int(threadIdx.x) / apart, tx = int(threadIdx.x) % apart;
    float sum[side][side] = {};
    for (int64_t x0 = 0; x0 < k; x0 += deep) {
        __syncthreads();                               // all are done with the slices before
        fetch(left, a, lda, a_across, i0, m, x0, k);
        fetch(right, b, ldb, b_across, j0, n, x0, k);
        __syncthreads();
#pragma unroll
        for (int x = 0; x < deep; ++x) {
            float u[side], v[side];
#pragma unroll
            for (int i = 0; i < side; ++i) {
                u[i] = left[x * line + ty + apart * i];
                v[i] = right[x * line + tx + apart * i];
            }
#pragma unroll
            for (int i = 0; i < side; ++i)
#pragma unroll
                for (int j = 0; j < side; ++j) sum[i][j] += u[i] * v[j];
        }
    }
#pragma unroll
    for (int i = 0; i < side; ++i)
#pragma unroll
        for (int j = 0; j < side; ++j) {
            const int64_t row = i0 + ty + apart * i, col = j0 + tx + apart * j;
            if (row < m && col < n) put(row, col, sum[i][j]);
        }
}

inline void run_simt(const Engine& engine, const Product& p) {
    const int64_t blocks = (p.m + tile - 1) / tile * ((p.n + tile - 1) / tile);
    launch("product", simt, {grid_of(blocks), threads}, engine.stream, p.m, p.n, p.k, p.a, p.lda, p.a_across, p.b, p.ldb,
           p.b_across, finish_of(p));
}

}  // namespace gemm_room

// Bytes of scratch that product() wants for a product of these sizes, types and orientations; the pointers may still be
// null. With less than that it computes the same another way, more slowly: give all or nothing.
inline int64_t product_scratch(const Engine&, const Product&) { return 0; }
inline int64_t product_scratch(const GraphImpl& g, const Product& p) {
    const Device& device = static_cast<const Device&>(*g.backend);
    return product_scratch(Engine{device.stream, device.capability, device.exact}, p);
}

// Starts it. C overlaps neither factor; D may be C.
inline void product(const Engine& engine, const Product& p, void* = nullptr) {
    if (p.m <= 0 || p.n <= 0) return;
    gemm_room::run_simt(engine, p);
}
inline void product(const Call& call, const Product& p, void* scratch = nullptr) {
    product(engine_of(call), p, scratch);
}

}  // namespace cuda
}}  // namespace qlora
