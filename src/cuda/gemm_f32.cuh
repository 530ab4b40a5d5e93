// gemm_f32.cuh - matrix products by the simple engine: sums in f32 in order of the inner dimension, any sizes,
// types and alignments. A block sums a tile of 64 x 64, a thread 4 x 4 of it.
#pragma once
#include "src/cuda/mma.cuh"
#include "src/cuda/plan/products.h"
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// What a product runs on, as the call says or as a test does.
struct Engine : Facts {
    const Stream& stream;
    int multiprocessors = 1;
};
inline Engine engine_of(const Call& call) {
    const Device& device = device_of(call);
    return {device, device.stream, device.multiprocessors};
}

namespace gemm_room {

constexpr int edge = 64, deep = 16, few = 4, f32_threads = (edge / few) * (edge / few);
constexpr int padded = edge + 1;                       // in shared memory: neighbours of both dimensions in other banks

// What C becomes from its sums. Where C^T was computed, rows and columns are those of C^T.
struct Finish {
    Places c;
    int64_t ldc;
    float alpha, beta;
    Values d;
    int64_t ldd;
    bool swapped, fours;                               // fours: four columns at a time, for all addresses allow it

    __device__ void one(int64_t i, int64_t j, float sum) const {
        const int64_t row = swapped ? j : i, col = swapped ? i : j;
        float value = alpha * sum;
        if (beta != 0) value += beta * d[row * ldd + col];
        c.set(row * ldc + col, value);
    }
    __device__ void four(int64_t i, int64_t j, const float4& sums) const {
        float v[4] = {alpha * sums.x, alpha * sums.y, alpha * sums.z, alpha * sums.w};
        if (beta != 0) {
            const int64_t at = i * ldd + j;
            if (d.type == DType::f32) {
                const float4 old = *reinterpret_cast<const float4*>(static_cast<const float*>(d.data) + at);
                v[0] += beta * old.x, v[1] += beta * old.y, v[2] += beta * old.z, v[3] += beta * old.w;
            } else {
                for (int x = 0; x < 4; ++x) v[x] += beta * d[at + x];
            }
        }
        const int64_t at = i * ldc + j;
        if (c.type == DType::f32) {
            *reinterpret_cast<float4*>(static_cast<float*>(c.data) + at) = make_float4(v[0], v[1], v[2], v[3]);
        } else if (c.type == DType::bf16) {
            *reinterpret_cast<uint2*>(static_cast<uint16_t*>(c.data) + at) =
                make_uint2(bf16_bits(v[0]) | bf16_bits(v[1]) << 16, bf16_bits(v[2]) | bf16_bits(v[3]) << 16);
        } else {
            for (int x = 0; x < 4; ++x) c.set(at + x, v[x]);
        }
    }
};

inline bool is_in_fours(const void* data, DType type, int64_t ld) {
    return reinterpret_cast<size_t>(data) % size_t(bytes_of(type, 4)) == 0 && ld % 4 == 0;
}
inline Finish finish_of(const Product& p, bool swapped = false) {
    const Values d = p.d.data ? p.d : Values{p.c.data, p.c.type};
    const int64_t ldd = p.d.data ? p.ldd : p.ldc;
    const bool fours = !swapped && p.n % 4 == 0 && is_in_fours(p.c.data, p.c.type, p.ldc) &&
                       (p.beta == 0 || is_in_fours(d.data, d.type, ldd));
    return {p.c, p.ldc, p.alpha, p.beta, d, ldd, swapped, fours};
}

// to[x * padded + o] = the element of line first + o and inner index x0 + x, 0 beyond the matrix.
__device__ inline void fetch(float* to, const Values& from, int64_t ld, bool across, int64_t first, int64_t lines,
                             int64_t x0, int64_t k) {
QLORA_UNROLL
    for (int i = int(threadIdx.x); i < edge * deep; i += f32_threads) {
        const int o = across ? i % edge : i / deep, x = across ? i / edge : i % deep;
        const int64_t at = first + o, inner = x0 + x;
        const bool inside = at < lines && inner < k;
        to[x * padded + o] = inside ? from[across ? inner * ld + at : at * ld + inner] : 0.0f;
    }
}

// Block = a tile of C, thread (ty, tx) = its rows ty + 16 i and columns tx + 16 j.
static __global__ void __launch_bounds__(f32_threads) sum_tile(int64_t m, int64_t n, int64_t k, Values a, int64_t lda,
                                                               bool a_across, Values b, int64_t ldb, bool b_across,
                                                               const int32_t* live, Finish put) {
    QLORA_SHARED(float, left, deep * padded);
    QLORA_SHARED(float, right, deep * padded);
    constexpr int apart = edge / few;
    const int64_t tiles_n = (n + edge - 1) / edge;
    const int64_t i0 = blockIdx.x / tiles_n * edge, j0 = blockIdx.x % tiles_n * edge;
    if (live && i0 >= *live) return;
    const int ty = int(threadIdx.x) / apart, tx = int(threadIdx.x) % apart;
    float sum[few][few] = {};
    for (int64_t x0 = 0; x0 < k; x0 += deep) {
        __syncthreads();                               // all are done with the slices before
        fetch(left, a, lda, a_across, i0, m, x0, k);
        fetch(right, b, ldb, b_across, j0, n, x0, k);
        __syncthreads();
QLORA_UNROLL
        for (int x = 0; x < deep; ++x) {
            float u[few], v[few];
QLORA_UNROLL
            for (int i = 0; i < few; ++i) {
                u[i] = left[x * padded + ty + apart * i];
                v[i] = right[x * padded + tx + apart * i];
            }
QLORA_UNROLL
            for (int i = 0; i < few; ++i)
QLORA_UNROLL
                for (int j = 0; j < few; ++j) sum[i][j] += u[i] * v[j];
        }
    }
QLORA_UNROLL
    for (int i = 0; i < few; ++i)
QLORA_UNROLL
        for (int j = 0; j < few; ++j) {
            const int64_t row = i0 + ty + apart * i, col = j0 + tx + apart * j;
            if (row < m && col < n) put.one(row, col, sum[i][j]);
        }
}

inline void run_f32(const Engine& engine, const Product& p) {
    const int64_t blocks = (p.m + edge - 1) / edge * ((p.n + edge - 1) / edge);
    launch("product", sum_tile, {grid_of(blocks), f32_threads}, engine.stream, p.m, p.n, p.k, p.a, p.lda, p.a_across,
           p.b, p.ldb, p.b_across, p.live, finish_of(p));
}

}  // namespace gemm_room

}  // namespace cuda
}}  // namespace qlora
