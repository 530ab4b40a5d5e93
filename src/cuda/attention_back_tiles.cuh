// attention_back_tiles.cuh - the gradients of attention by tensor cores. Formulas: src/ops/attention_back.cpp.
//
// Two passes that repeat S and dP, so that every result has one writer and one order of summation:
//   keys      a block owns keys of a kv head and walks over the group's heads and, in order, tiles of rows that see
//             them: S^T = k q^T, P = 2^(S - L), dv += P^T dy, dP^T = v dy^T, dS = P (dP - D), dk += dS^T q
//   queries   a block owns rows of a head and walks over tiles of keys: S = q k^T, dP = dy v^T, dq += dS k
// A warp owns 16 keys or rows; scores and what becomes of them stay in registers. In heads of 256 two warps share 16
// keys and each sums half of dk and dv. With a cap dS gains the factor 1 - t^2, t = S / cap, taken
// back from P: in the pass over keys to 2^-9 / cap, which a cap of tens makes small.
#pragma once
#include "src/cuda/attention_back_rows.cuh"
#include "src/cuda/attention_tiles.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

struct BackTiles {
    Back b;
    const uint16_t *q, *k, *v, *dy;                    // laid out as in b.p
    uint16_t* out;
};

// The weight of a score, and dS out of it and dP, without the scale.
__device__ __forceinline__ float weight_of(const Problem& p, float product, float logsum) {
    return power2(fmaf(p.cap > 0 ? capped(p, product) : product, score_factor(p), -logsum));
}
__device__ __forceinline__ float dscore_of(const Problem& p, float weight, float logsum, float dp, float dot) {
    const float ds = weight * (dp - dot);
    if (!(p.cap > 0)) return ds;
    const float t = (log2f(weight) + logsum) / (p.cap * log2_e);           // of a weight of zero: infinite
    return weight > 0 ? ds * (1 - t * t) : 0;
}

// Of the rows that see a key of [from, to): the first, and the one behind the last.
__device__ inline int2 rows_of_keys(const Problem& p, int from, int to) {
    int v[2] = {most, 0};
    for (int row = int(threadIdx.x); row < p.rows; row += int(blockDim.x)) {
        const Range r = p.range(row);
        if (r.first >= r.last || r.first >= to || r.last <= from) continue;
        v[0] = min(v[0], row);
        v[1] = -(row + 1);
    }
    block_least(v);
    return v[0] < -v[1] ? make_int2(v[0], -v[1]) : make_int2(0, 0);
}

template <int width, int own, int walk> constexpr int back_bytes() { return (2 * own + 4 * walk) * width * 2; }

// Scores {16 keys, walk rows} -> weights in bf16; a row that does not see a key gives it none.
template <int blocks>
__device__ __forceinline__ void key_weights(const Problem& p, float (&s)[blocks][4], const Stat* rows, int key,
                                            int from, int to, uint32_t (&weights)[blocks / 2][4]) {
    const int lane = int(threadIdx.x) % 32;
    bool cut = false;
    QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
        QLORA_UNROLL for (int e = 0; e < 2; ++e) {
            const Stat r = rows[8 * n + 2 * (lane % 4) + e];
            cut |= r.first > from || r.last < to;
            s[n][e] = weight_of(p, s[n][e], r.logsum);
            s[n][2 + e] = weight_of(p, s[n][2 + e], r.logsum);
        }
    }
    if (__any_sync(0xffffffffu, cut)) {
        QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
            QLORA_UNROLL for (int i = 0; i < 4; ++i) {
                const Stat r = rows[8 * n + 2 * (lane % 4) + i % 2];
                const int at = key + 8 * (i / 2);
                if (at < r.first || at >= r.last) s[n][i] = 0;
            }
        }
    }
    pack(weights, s);
}

template <int blocks>
__device__ __forceinline__ void key_dscores(const Problem& p, const uint32_t (&weights)[blocks / 2][4],
                                            float (&dp)[blocks][4], const Stat* rows,
                                            uint32_t (&ds)[blocks / 2][4]) {
    const int lane = int(threadIdx.x) % 32;
    QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
        QLORA_UNROLL for (int i = 0; i < 4; ++i) {
            const Stat r = rows[8 * n + 2 * (lane % 4) + i % 2];
            const float weight = half_of(weights[n / 2][n % 2 * 2 + i / 2], i % 2);
            dp[n][i] = dscore_of(p, weight, r.logsum, dp[n][i], r.dot);
        }
    }
    pack(ds, dp);
}

// `parts` warps share 16 keys; of a tile `take` rows are in registers at a time. Shared memory: k, v, twice q and dy.
template <int width, int own, int walk, int take, int parts>
__global__ void __launch_bounds__(own * 2 * parts) back_keys_kernel(BackTiles t) {
    constexpr int threads = own * 2 * parts, tile_bytes = walk * width * 2, out = width / parts / 8;
    QLORA_DYNAMIC_SHARED(unsigned char, shared_k);
    QLORA_SHARED(Stat, shared_rows, 2 * walk);
    unsigned char *const shared_v = shared_k + own * width * 2, *const shared_q = shared_v + own * width * 2;
    const Problem& p = t.b.p;
    const int kv = int(blockIdx.x) % p.kv_heads, key = int(blockIdx.x) / p.kv_heads * own;
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, mine = warp % (own / 16) * 16,
              chunk = warp / (own / 16) * out;
    fetch<width, own, threads>(shared_k, t.k + kv * p.k.head_step, p.k.key_step, key, p.keys, p.size);
    fetch<width, own, threads>(shared_v, t.v + kv * p.v.head_step, p.v.key_step, key, p.keys, p.size);
    const int2 rows = rows_of_keys(p, key, key + own);
    const int begin = rows.x / walk, tiles = (rows.y + walk - 1) / walk - begin, steps = tiles * p.group;
    const auto head_of = [&](int step) { return kv * p.group + step / tiles; };
    const auto row_of = [&](int step) { return (begin + step % tiles) * walk; };
    const auto fetch_tile = [&](int step) {
        unsigned char* const to = shared_q + step % 2 * 2 * tile_bytes;
        if (step < steps) {
            const int64_t row_step = int64_t(p.heads) * p.size;
            const int row = row_of(step), head = head_of(step);
            fetch<width, walk, threads>(to, t.q + head * p.size, row_step, row, p.rows, p.size);
            fetch<width, walk, threads>(to + tile_bytes, t.dy + head * p.size, row_step, row, p.rows, p.size);
            if (const int i = int(threadIdx.x); i < walk) {                // a row that is not there sees nothing
                const bool inside = row + i < p.rows;
                const Stat* const from = t.b.stats + head * p.rows + (inside ? row + i : 0);
                cp_async16(shared_rows + step % 2 * walk + i, from, inside);
            }
        }
        cp_async_commit();
    };
    fetch_tile(0);
    Left<width, false> k, v;
    k.load(shared_k, mine);
    v.load(shared_v, mine);
    float dk[out][4] = {}, dv[out][4] = {};
    for (int step = 0; step < steps; ++step) {
        fetch_tile(step + 1);
        cp_async_wait<1>();
        __syncthreads();
        QLORA_ROLLED for (int from = 0; from < walk; from += take) {
            const unsigned char *const q = shared_q + step % 2 * 2 * tile_bytes + from * width * 2,
                                *const dy = q + tile_bytes;
            const Stat* const seen = shared_rows + step % 2 * walk + from;
            uint32_t weights[take / 16][4], ds[take / 16][4];
            float s[take / 8][4];
            multiply(s, k, q);
            key_weights(p, s, seen, key + mine + lane / 4, key, key + own, weights);
            multiply_add<width>(dv, weights, dy, chunk);
            multiply(s, v, dy);
            key_dscores(p, weights, s, seen, ds);
            multiply_add<width>(dk, ds, q, chunk);
        }
        __syncthreads();                               // all are done with this tile before it is filled again
    }
    cp_async_wait<0>();
    const float scale[2] = {p.scale, p.scale}, one[2] = {1, 1};
    store_rows_of(t.out, dk, scale, key + mine, chunk, p.size,
                  [&](int at) { return at < p.keys ? t.b.dk_at(at, kv) : int64_t(-1); });
    store_rows_of(t.out, dv, one, key + mine, chunk, p.size,
                  [&](int at) { return at < p.keys ? t.b.dv_at(at, kv) : int64_t(-1); });
}

// Scores {16 rows, walk keys} and dP -> dS; `key` is that of the thread's first column.
template <int blocks>
__device__ __forceinline__ void query_dscores(const Problem& p, float (&s)[blocks][4], const float (&dp)[blocks][4],
                                              const Stat (&r)[2], int key, bool whole) {
    QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
        QLORA_UNROLL for (int i = 0; i < 4; ++i) {
            const Stat& row = r[i / 2];
            const int at = key + 8 * n + i % 2;
            const float weight = weight_of(p, s[n][i], row.logsum);
            const float ds = dscore_of(p, weight, row.logsum, dp[n][i], row.dot);
            s[n][i] = whole || (row.first <= at && at < row.last) ? ds : 0;
        }
    }
}

// Shared memory: q, dy, then twice k and v.
template <int width, int own, int walk, bool keep>
__global__ void __launch_bounds__(own * 2) back_queries_kernel(BackTiles t) {
    constexpr int threads = own * 2, tile_bytes = walk * width * 2;
    QLORA_DYNAMIC_SHARED(unsigned char, shared_q);
    unsigned char *const shared_dy = shared_q + own * width * 2, *const shared_kv = shared_dy + own * width * 2;
    const Problem& p = t.b.p;
    const int head = int(blockIdx.x) % p.heads, kv = head / p.group;
    const int row = int((gridDim.x - 1 - blockIdx.x) / unsigned(p.heads)) * own;          // the longest rows first
    const int lane = int(threadIdx.x) % 32, mine = int(threadIdx.x) / 32 * 16;
    const int64_t row_step = int64_t(p.heads) * p.size;
    fetch<width, own, threads>(shared_q, t.q + head * p.size, row_step, row, p.rows, p.size);
    fetch<width, own, threads>(shared_dy, t.dy + head * p.size, row_step, row, p.rows, p.size);
    cp_async_commit();
    const Extent seen = keys_of_rows<own>(p, row);
    const int begin = seen.first / walk, end = (seen.last + walk - 1) / walk;
    const auto fetch_tile = [&](int i) {
        unsigned char* const to = shared_kv + i % 2 * 2 * tile_bytes;
        if (i < end) {
            const int64_t at = kv * p.k.head_step;
            fetch<width, walk, threads>(to, t.k + at, p.k.key_step, i * walk, p.keys, p.size);
            fetch<width, walk, threads>(to + tile_bytes, t.v + at, p.k.key_step, i * walk, p.keys, p.size);
        }
        cp_async_commit();
    };
    fetch_tile(begin);
    cp_async_wait<1>();
    __syncthreads();
    Left<width, keep> q, dy;
    q.load(shared_q, mine);
    dy.load(shared_dy, mine);
    Stat r[2];
    QLORA_UNROLL for (int e = 0; e < 2; ++e)
        if (const int at = row + mine + lane / 4 + 8 * e; at < p.rows) r[e] = t.b.stats[head * p.rows + at];
    float dq[width / 8][4] = {};
    for (int i = begin; i < end; ++i) {
        fetch_tile(i + 1);
        cp_async_wait<1>();
        __syncthreads();
        const unsigned char *const k = shared_kv + i % 2 * 2 * tile_bytes, *const v = k + tile_bytes;
        float s[walk / 8][4], dp[walk / 8][4];
        uint32_t ds[walk / 16][4];
        multiply(s, q, k);
        multiply(dp, dy, v);
        query_dscores(p, s, dp, r, i * walk + 2 * (lane % 4), seen.whole(i * walk, i * walk + walk));
        pack(ds, s);
        multiply_add<width>(dq, ds, k, 0);
        __syncthreads();                               // all are done with this tile before it is filled again
    }
    cp_async_wait<0>();
    const float scale[2] = {p.scale, p.scale};
    store_rows_of(t.out, dq, scale, row + mine, 0, p.size,
                  [&](int at) { return at < p.rows ? p.at(at, head) : int64_t(-1); });
}

template <int width, int own, int walk, int take, int parts, bool keep>
void launch_back_tiles(const Call& call, const BackTiles& t) {
    const Problem& p = t.b.p;
    constexpr int bytes = back_bytes<width, own, walk>();
    launch("attention_back: keys", back_keys_kernel<width, own, walk, take, parts>,
           {grid_of((p.keys + own - 1) / own * p.kv_heads), own * 2 * parts, bytes}, stream_of(call), t);
    launch("attention_back: queries", back_queries_kernel<width, own, walk, keep>,
           {grid_of((p.rows + own - 1) / own * p.heads), own * 2, bytes}, stream_of(call), t);
}

inline void back_tiles(const Call& call, const Back& b) {
    char* scratch = static_cast<char*>(call.scratch) + stats_bytes(call.graph, call.node);
    BackTiles t{b, nullptr, nullptr, nullptr, nullptr, call.result<uint16_t>()};
    t.q = in_bf16(call, 1, scratch);
    t.k = in_bf16(call, 2, scratch);
    t.v = in_bf16(call, 3, scratch);
    const bool copies_dy = call.source(0).storage != DType::bf16;
    uint16_t* const dy = copies_dy ? reinterpret_cast<uint16_t*>(scratch) : nullptr;
    t.dy = copies_dy ? dy : call.in<uint16_t>(0);
    launch_stats(call, b, dy);
    switch (width_of(b.p.size)) {
        case 64: return launch_back_tiles<64, 64, 64, 64, 1, true>(call, t);
        case 96: return launch_back_tiles<96, 64, 64, 64, 1, true>(call, t);
        case 128: return launch_back_tiles<128, 64, 64, 32, 1, false>(call, t);
        default: return launch_back_tiles<256, 64, 16, 16, 2, false>(call, t);
    }
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
