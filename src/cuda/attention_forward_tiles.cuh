// attention_forward_tiles.cuh - attention by tensor cores.
//
// A block owns `queries` rows of a head, a warp 16 of them; tiles of `keys` keys and values come through cp.async, the
// next one while one is worked on. Scores stay in registers:
//     S = q k^T, m' = max(m, S), P = 2^(S - m'), y' = y 2^(m - m') + P v, l' = l 2^(m - m') + sum P      S in base 2
// Tiles that no row sees are skipped, tiles that all rows see need no mask.
#pragma once
#include "src/cuda/attention_tiles.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

struct ForwardTiles {
    Problem p;
    const uint16_t *q, *k, *v;                         // laid out as in p
    uint16_t* y;
    float* logsum;
};

// What a thread keeps of its two rows.
struct TwoRows {
    int first[2] = {}, last[2] = {};
    float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {};
};

__device__ inline float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// Scores -> P, not yet divided by the sum; `key` is that of the thread's first column. y is scaled to the new maximum.
template <int blocks, int out>
__device__ __forceinline__ void softmax_step(const Problem& p, float (&s)[blocks][4], float (&y)[out][4], TwoRows& r,
                                             int key, bool whole) {
    if (p.cap > 0) {
        QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
            QLORA_UNROLL for (int i = 0; i < 4; ++i) s[n][i] = capped(p, s[n][i]);
        }
    }
    if (!whole) {
        QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
            QLORA_UNROLL for (int i = 0; i < 4; ++i) {
                const int at = key + 8 * n + i % 2;
                if (at < r.first[i / 2] || at >= r.last[i / 2]) s[n][i] = -INFINITY;
            }
        }
    }
    const float factor = score_factor(p);
    float shift[2];
    QLORA_UNROLL for (int e = 0; e < 2; ++e) {
        float m = r.maximum[e];
        QLORA_UNROLL for (int n = 0; n < blocks; ++n) m = fmaxf(m, fmaxf(s[n][2 * e], s[n][2 * e + 1]));
        m = quad_max(m);
        const float safe = m == -INFINITY ? 0 : m, shrink = power2((r.maximum[e] - safe) * factor);
        r.maximum[e] = m;
        r.sum[e] *= shrink;
        shift[e] = safe * factor;
        QLORA_UNROLL for (int n = 0; n < out; ++n) {
            y[n][2 * e] *= shrink;
            y[n][2 * e + 1] *= shrink;
        }
    }
    QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
        QLORA_UNROLL for (int i = 0; i < 4; ++i) {
            s[n][i] = power2(fmaf(s[n][i], factor, -shift[i / 2]));
            r.sum[i / 2] += s[n][i];
        }
    }
}

// Shared memory: q, then twice k and v.
template <int width, int queries, int keys> constexpr int forward_bytes() { return (queries + 4 * keys) * width * 2; }

template <int width, int queries, int keys, bool keep_q>
__global__ void __launch_bounds__(queries * 2) forward_kernel(ForwardTiles f) {
    constexpr int threads = queries * 2, tile_bytes = keys * width * 2;
    QLORA_DYNAMIC_SHARED(unsigned char, shared_q);
    unsigned char* const shared_kv = shared_q + queries * width * 2;
    const Problem& p = f.p;
    const int head = int(blockIdx.x) % p.heads, kv = head / p.group;
    const int row = int((gridDim.x - 1 - blockIdx.x) / unsigned(p.heads)) * queries;      // the longest rows first
    const int lane = int(threadIdx.x) % 32, mine = int(threadIdx.x) / 32 * 16;
    fetch<width, queries, threads>(shared_q, f.q + head * p.size, int64_t(p.heads) * p.size, row, p.rows, p.size);
    cp_async_commit();
    const Extent seen = keys_of_rows<queries>(p, row);
    const int begin = seen.first / keys, end = (seen.last + keys - 1) / keys;
    const auto fetch_tile = [&](int t) {
        unsigned char* const to = shared_kv + t % 2 * 2 * tile_bytes;
        if (t < end) {
            const int64_t at = kv * p.k.head_step;
            fetch<width, keys, threads>(to, f.k + at, p.k.key_step, t * keys, p.keys, p.size);
            fetch<width, keys, threads>(to + tile_bytes, f.v + at, p.k.key_step, t * keys, p.keys, p.size);
        }
        cp_async_commit();
    };
    fetch_tile(begin);
    cp_async_wait<1>();
    __syncthreads();
    Left<width, keep_q> q;
    q.load(shared_q, mine);
    TwoRows r;
    QLORA_UNROLL for (int e = 0; e < 2; ++e) {
        const int at = row + mine + lane / 4 + 8 * e;
        const Range range = at < p.rows ? p.range(at) : Range{};
        r.first[e] = int(range.first);
        r.last[e] = int(range.last);
    }
    float y[width / 8][4] = {};
    for (int t = begin; t < end; ++t) {
        fetch_tile(t + 1);
        cp_async_wait<1>();
        __syncthreads();
        const unsigned char* const tile = shared_kv + t % 2 * 2 * tile_bytes;
        float s[keys / 8][4];
        uint32_t weights[keys / 16][4];
        multiply(s, q, tile);
        softmax_step(p, s, y, r, t * keys + 2 * (lane % 4), seen.whole(t * keys, t * keys + keys));
        pack(weights, s);
        multiply_add<width>(y, weights, tile + tile_bytes, 0);
        __syncthreads();                               // all are done with this tile before it is filled again
    }
    cp_async_wait<0>();
    float factor[2];
    QLORA_UNROLL for (int e = 0; e < 2; ++e) {
        const float sum = quad_sum(r.sum[e]);
        const int at = row + mine + lane / 4 + 8 * e;
        factor[e] = sum > 0 ? 1 / sum : 0;
        if (lane % 4 == 0 && at < p.rows)
            f.logsum[int64_t(at) * p.heads + head] =
                sum > 0 ? r.maximum[e] * score_factor(p) * ln_2 + logf(sum) : 0;
    }
    store_rows_of(f.y, y, factor, row + mine, 0, p.size,
                  [&](int at) { return at < p.rows ? p.at(at, head) : int64_t(-1); });
}

template <int width, int queries, int keys, bool keep_q> void launch_forward(const Call& call, const ForwardTiles& f) {
    const int64_t tiles = (f.p.rows + queries - 1) / queries;
    launch("attention", forward_kernel<width, queries, keys, keep_q>,
           {grid_of(tiles * f.p.heads), queries * 2, forward_bytes<width, queries, keys>()}, stream_of(call), f);
}

inline void forward_tiles(const Call& call, const Problem& p) {
    char* scratch = static_cast<char*>(call.scratch);
    ForwardTiles f{p, nullptr, nullptr, nullptr, call.result<uint16_t>(), call.saved()};
    f.q = in_bf16(call, 0, scratch);
    f.k = in_bf16(call, 1, scratch);
    f.v = in_bf16(call, 2, scratch);
    switch (width_of(p.size)) {
        case 64: return launch_forward<64, 128, 64, true>(call, f);
        case 96: return launch_forward<96, 128, 64, true>(call, f);
        case 128: return launch_forward<128, 128, 64, true>(call, f);
        default: return launch_forward<256, 64, 32, false>(call, f);
    }
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
