// attention_back_rows.cuh - the gradients of attention one row and one key at a time: any head size, any storage.
// Formulas in src/ops/attention_back.cpp.
//
// Every result has one writer and one order of summation: a warp owns a key of a kv head and walks over the group's
// heads and, in order, the rows that see it (dk, dv); another owns a row and head and walks over its keys (dq). A lane
// holds the elements lane, lane + 32, ... of a head.
#pragma once
#include "src/cuda/attention_problem.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

// Of a row and head: log-sum-exp in base 2, D = dy . y, and which keys the row sees.
struct alignas(16) Stat {
    float logsum = 0, dot = 0;
    int first = 0, last = 0;
};
static_assert(sizeof(Stat) == stat_bytes);

struct Back {
    Problem p;
    Values dy, y;
    const float* logsum;                               // {rows, heads}
    Stat* stats;                                       // {heads, rows}
    Places out;                                        // flat: dq, dk, dv, laid out as q, k, v
    __device__ int64_t dk_at(int64_t key, int kv) const { return p.rows * p.heads * p.size + p.k.at(key, kv); }
    __device__ int64_t dv_at(int64_t key, int kv) const { return dk_at(key, kv) + p.keys * p.kv_heads * p.size; }
};

constexpr int back_threads = 256;
__device__ inline int64_t warp_number() { return (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32; }
__device__ inline int64_t warp_count() { return int64_t(gridDim.x) * blockDim.x / 32; }
__device__ inline int lane_number() { return int(threadIdx.x) % 32; }

// The statistics of every row and head, and dy in bf16 for kernels that want it so.
static __global__ void stats_kernel(Back b, uint16_t* dy16) {
    const Problem& p = b.p;
    for (int64_t item = warp_number(); item < p.rows * p.heads; item += warp_count()) {
        float sum = 0;
        for (int i = 8 * lane_number(); i < p.size; i += 8 * 32) {
            const int64_t at = item * p.size + i;
            float dy[8], y[8];
            load8(b.dy, at, p.size - i, dy);
            load8(b.y, at, p.size - i, y);
            QLORA_UNROLL for (int e = 0; e < 8; ++e) sum += dy[e] * y[e];
            if (dy16) decode_room::store_eight({dy16, DType::bf16}, at, dy);
        }
        sum = warp_sum(sum);
        if (lane_number() != 0) continue;
        const int64_t row = item / p.heads;
        const Range r = p.range(row);
        b.stats[item % p.heads * p.rows + row] = {b.logsum[item] * log2_e, sum, int(r.first), int(r.last)};
    }
}

template <int n> __device__ inline void load_lane(const Values& from, int64_t at, int size, float (&to)[n]) {
    QLORA_UNROLL for (int i = 0; i < n; ++i) {
        const int e = lane_number() + 32 * i;
        to[i] = e < size ? from[at + e] : 0;
    }
}
template <int n> __device__ inline float dot(const float (&a)[n], const float (&b)[n]) {
    float sum = 0;
    QLORA_UNROLL for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return warp_sum(sum);
}
template <int n> __device__ inline void add(float (&to)[n], float factor, const float (&from)[n]) {
    QLORA_UNROLL for (int i = 0; i < n; ++i) to[i] += factor * from[i];
}
template <int n>
__device__ inline void store_lane(const Places& to, int64_t at, int size, float factor, const float (&from)[n]) {
    QLORA_UNROLL for (int i = 0; i < n; ++i) {
        const int e = lane_number() + 32 * i;
        if (e < size) to.set(at + e, factor * from[i]);
    }
}

// P and dS (without the scale) of one row, head and key.
struct Weight2 { float p, ds; };
__device__ inline Weight2 weights_of(const Back& b, int64_t row, int head, float product, float dp) {
    const Stat stat = b.stats[head * b.p.rows + row];
    const float s = b.p.score(product), weight = exp2f(s * log2_e - stat.logsum);
    const float t = b.p.cap > 0 ? s / b.p.cap : 0;
    return {weight, weight * (dp - stat.dot) * (1 - t * t)};
}

template <int n> __global__ void keys_kernel(Back b) {
    const Problem& p = b.p;
    for (int64_t item = warp_number(); item < p.keys * p.kv_heads; item += warp_count()) {
        const int64_t key = item / p.kv_heads;
        const int kv = int(item % p.kv_heads);
        float k[n], v[n], dk[n] = {}, dv[n] = {}, q[n], dy[n];
        load_lane(p.k.values, p.k.at(key, kv), p.size, k);
        load_lane(p.v.values, p.v.at(key, kv), p.size, v);
        for (int64_t row = 0; row < p.rows; ++row) {
            if (!p.range(row).has(key)) continue;
            for (int head = kv * p.group; head < (kv + 1) * p.group; ++head) {
                load_lane(p.q, p.at(row, head), p.size, q);
                load_lane(b.dy, p.at(row, head), p.size, dy);
                const Weight2 w = weights_of(b, row, head, dot(q, k), dot(dy, v));
                add(dk, w.ds, q);
                add(dv, w.p, dy);
            }
        }
        store_lane(b.out, b.dk_at(key, kv), p.size, p.scale, dk);
        store_lane(b.out, b.dv_at(key, kv), p.size, 1, dv);
    }
}

template <int n> __global__ void queries_kernel(Back b) {
    const Problem& p = b.p;
    for (int64_t item = warp_number(); item < p.rows * p.heads; item += warp_count()) {
        const int64_t row = item / p.heads;
        const int head = int(item % p.heads), kv = head / p.group;
        float q[n], dy[n], dq[n] = {}, k[n], v[n];
        load_lane(p.q, p.at(row, head), p.size, q);
        load_lane(b.dy, p.at(row, head), p.size, dy);
        const Range range = p.range(row);
        for (int64_t key = range.first; key < range.last; ++key) {
            load_lane(p.k.values, p.k.at(key, kv), p.size, k);
            load_lane(p.v.values, p.v.at(key, kv), p.size, v);
            add(dq, weights_of(b, row, head, dot(q, k), dot(dy, v)).ds, k);
        }
        store_lane(b.out, p.at(row, head), p.size, p.scale, dq);
    }
}

template <int n> void launch_back_rows(const Call& call, const Back& b) {
    constexpr int warps = back_threads / 32;
    launch("attention_back: keys", keys_kernel<n>, {grid_for(call, b.p.keys * b.p.kv_heads, warps), back_threads},
           stream_of(call), b);
    launch("attention_back: queries", queries_kernel<n>, {grid_for(call, b.p.rows * b.p.heads, warps), back_threads},
           stream_of(call), b);
}
inline void launch_stats(const Call& call, const Back& b, uint16_t* dy16 = nullptr) {
    launch("attention_back: statistics", stats_kernel,
           {grid_for(call, b.p.rows * b.p.heads, back_threads / 32), back_threads}, stream_of(call), b, dy16);
}
inline void back_rows(const Call& call, const Back& b) {
    launch_stats(call, b);
    if (b.p.size <= 128) launch_back_rows<4>(call, b);
    else if (b.p.size <= 256) launch_back_rows<8>(call, b);
    else launch_back_rows<largest_head / 32>(call, b);
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
