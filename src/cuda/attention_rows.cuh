// attention_rows.cuh - attention one row at a time: any head size, any storage, and the form for few rows over many
// keys (generation).
//
// A block owns a row and up to `heads` of the heads that share a kv head, so that keys and values are read once for
// them, and one of `splits` pieces of the row's keys. Some lanes of a warp hold a key together, eight numbers each (or
// pieces * 8): a slot. Every slot keeps its own running maximum m, sum l and weighted values y of the keys it saw,
//     m' = max(m, s), l' = l 2^(m - m') + 2^(s - m'), y' = y 2^(m - m') + 2^(s - m') v       s in base 2
// and the slots are added in their order at the end. With one split that is the result; with several each leaves y, m
// and l in scratch, and a second kernel adds them in order.
#pragma once
#include "src/cuda/attention_problem.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

constexpr int row_threads = 128;

struct RowsResult {
    Places y;                                          // {rows, heads * size}
    float* logsum;                                     // {rows, heads}
    float* partial;                                    // {rows, heads, splits, size + 2}: y, m, l
    int splits;
};

template <int heads, int pieces> struct Slot {
    float maximum[heads], sum[heads], y[heads][pieces][8];
};

// Where the eight numbers of a lane's piece begin, and how many of them the head has.
__device__ inline int piece_start(int place, int lanes, int piece) { return (piece * lanes + place) * 8; }
__device__ inline int piece_count(const Problem& p, int start) {
    const int left = p.size - start;
    return left < 0 ? 0 : left < 8 ? left : 8;
}

// A slot takes `batch` keys: loads first, so that they are under way together.
template <int heads, int pieces, int batch, bool blocks>
__device__ inline void take_keys(const Problem& p, int kv, int64_t key, int64_t step, int64_t end, int place, int lanes,
                                 const float (&q)[heads][pieces][8], Slot<heads, pieces>& slot) {
    float k[batch][pieces][8], v[batch][pieces][8], s[batch][heads];
    QLORA_UNROLL for (int b = 0; b < batch; ++b) {
        const int64_t mine = key + b * step;
        QLORA_UNROLL for (int i = 0; i < pieces; ++i) {
            const int start = piece_start(place, lanes, i), count = mine < end ? piece_count(p, start) : 0;
            load8<blocks>(p.k, p.k.at(mine, kv) + start, count, k[b][i]);
            load8<blocks>(p.v, p.v.at(mine, kv) + start, count, v[b][i]);
        }
    }
    QLORA_UNROLL for (int b = 0; b < batch; ++b) {
        QLORA_UNROLL for (int h = 0; h < heads; ++h) {
            float sum = 0;
            QLORA_UNROLL for (int i = 0; i < pieces; ++i) {
                QLORA_UNROLL for (int e = 0; e < 8; ++e) sum += q[h][i][e] * k[b][i][e];
            }
            for (int far = lanes / 2; far > 0; far /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, far);
            s[b][h] = key + b * step < end ? p.score(sum) * log2_e : -INFINITY;
        }
    }
    QLORA_UNROLL for (int h = 0; h < heads; ++h) {
        float m = slot.maximum[h];
        QLORA_UNROLL for (int b = 0; b < batch; ++b) m = fmaxf(m, s[b][h]);
        const float safe = m == -INFINITY ? 0 : m, shrink = exp2f(slot.maximum[h] - safe);
        slot.maximum[h] = m;
        slot.sum[h] *= shrink;
        QLORA_UNROLL for (int i = 0; i < pieces; ++i) {
            QLORA_UNROLL for (int e = 0; e < 8; ++e) slot.y[h][i][e] *= shrink;
        }
        QLORA_UNROLL for (int b = 0; b < batch; ++b) {
            const float weight = exp2f(s[b][h] - safe);
            slot.sum[h] += weight;
            QLORA_UNROLL for (int i = 0; i < pieces; ++i) {
                QLORA_UNROLL for (int e = 0; e < 8; ++e) slot.y[h][i][e] += weight * v[b][i][e];
            }
        }
    }
}

// The result of a head, or what its split leaves for the second kernel.
__device__ inline void put(const Problem& p, const RowsResult& out, int64_t row, int head, int split, int i, float y,
                           float maximum, float sum) {
    if (out.splits == 1) {
        out.y.set(p.at(row, head) + i, sum > 0 ? y / sum : 0);
        if (i == 0) out.logsum[row * p.heads + head] = sum > 0 ? maximum * ln_2 + logf(sum) : 0;
        return;
    }
    float* const to = out.partial + ((row * p.heads + head) * out.splits + split) * (p.size + 2);
    to[i] = y;
    if (i != 0) return;
    to[p.size] = maximum;
    to[p.size + 1] = sum;
}

// Adds the slots of a block in order and puts the results.
template <int heads, int pieces>
__device__ inline void add_slots(const Problem& p, const RowsResult& out, int64_t row, int first_head, int taken,
                                 int split, int lanes, Slot<heads, pieces>& slot) {
    QLORA_SHARED(float, maxima, row_threads * heads);  // {slots, heads}
    QLORA_SHARED(float, sums, row_threads * heads);
    QLORA_SHARED(float, y, row_threads * 8 * heads * pieces);                  // {slots, heads, width}
    const int me = int(threadIdx.x) / lanes, place = int(threadIdx.x) % lanes, slots = row_threads / lanes,
              width = lanes * 8 * pieces;
    QLORA_UNROLL for (int h = 0; h < heads; ++h) {
        if (place == 0) {
            maxima[me * heads + h] = slot.maximum[h];
            sums[me * heads + h] = slot.sum[h];
        }
        QLORA_UNROLL for (int i = 0; i < pieces; ++i) {
            const int start = piece_start(place, lanes, i);
            QLORA_UNROLL for (int e = 0; e < 8; ++e) y[(me * heads + h) * width + start + e] = slot.y[h][i][e];
        }
    }
    __syncthreads();
    for (int at = int(threadIdx.x); at < taken * p.size; at += row_threads) {
        const int h = at / p.size, i = at % p.size;
        float m = -INFINITY, sum = 0, total = 0;
        for (int s = 0; s < slots; ++s) m = fmaxf(m, maxima[s * heads + h]);
        for (int s = 0; s < slots && m > -INFINITY; ++s) {
            const float shrink = exp2f(maxima[s * heads + h] - m);
            sum += sums[s * heads + h] * shrink;
            total += y[(s * heads + h) * width + i] * shrink;
        }
        put(p, out, row, first_head + h, split, i, total, m, sum);
    }
}

// Grid: rows * kv_heads * chunks of a group's heads, splits.
template <int heads, int pieces, bool blocks>
__global__ void rows_kernel(Problem p, RowsResult out, int chunks, int lanes) {
    constexpr int batch = pieces == 1 ? 4 : 1;
    const int64_t item = blockIdx.x;
    const int chunk = int(item % chunks), kv = int(item / chunks % p.kv_heads), split = int(blockIdx.y);
    const int64_t row = item / chunks / p.kv_heads;
    const int first_head = kv * p.group + chunk * heads, taken = min(heads, p.group - chunk * heads);
    const int me = int(threadIdx.x) / lanes, place = int(threadIdx.x) % lanes, slots = row_threads / lanes;
    const Range all = p.range(row);
    int64_t length = all.last > all.first ? (all.last - all.first + out.splits - 1) / out.splits : 0;
    if (length < fewest_keys && out.splits > 1) length = fewest_keys;
    const int64_t from = all.first + split * length, end = out.splits > 1 ? min(from + length, all.last) : all.last;
    float q[heads][pieces][8];
    Slot<heads, pieces> slot;
    QLORA_UNROLL for (int h = 0; h < heads; ++h) {
        slot.maximum[h] = -INFINITY;
        slot.sum[h] = 0;
        QLORA_UNROLL for (int i = 0; i < pieces; ++i) {
            const int start = piece_start(place, lanes, i);
            load8(p.q, p.at(row, first_head + h) + start, h < taken ? piece_count(p, start) : 0, q[h][i]);
            QLORA_UNROLL for (int e = 0; e < 8; ++e) slot.y[h][i][e] = 0;
        }
    }
    for (int64_t key = from; key < end; key += slots * batch)
        take_keys<heads, pieces, batch, blocks>(p, kv, key + me, slots, end, place, lanes, q, slot);
    add_slots<heads, pieces>(p, out, row, first_head, taken, split, lanes, slot);
}

// A block a row and head: adds the splits in order.
static __global__ void add_splits(Problem p, RowsResult out) {
    const int64_t item = blockIdx.x;
    const float* const partial = out.partial + item * out.splits * (p.size + 2);
    float m = -INFINITY, sum = 0;
    for (int s = 0; s < out.splits; ++s) m = fmaxf(m, partial[s * (p.size + 2) + p.size]);
    for (int s = 0; s < out.splits && m > -INFINITY; ++s) {
        const float* const one = partial + s * (p.size + 2) + p.size;
        sum += one[1] * exp2f(one[0] - m);
    }
    for (int i = int(threadIdx.x); i < p.size; i += int(blockDim.x)) {
        float y = 0;
        for (int s = 0; s < out.splits && m > -INFINITY; ++s)
            y += partial[s * (p.size + 2) + i] * exp2f(partial[s * (p.size + 2) + p.size] - m);
        out.y.set(item * p.size + i, sum > 0 ? y / sum : 0);
    }
    if (threadIdx.x == 0) out.logsum[item] = sum > 0 ? m * ln_2 + logf(sum) : 0;
}

template <int heads, int pieces>
void launch_rows(const Call& call, const Problem& p, const RowsResult& out) {
    int lanes = 1;
    while (lanes < 32 && lanes * 8 * pieces < p.size) lanes *= 2;
    const int chunks = int(chunks_of(p.group, p.size));
    const Launch shape{grid_of(p.rows * p.kv_heads * chunks, out.splits), row_threads};
    const auto kernel =
        is_block(p.k.values.type) ? rows_kernel<heads, pieces, true> : rows_kernel<heads, pieces, false>;
    launch("attention by rows", kernel, shape, stream_of(call), p, out, chunks, lanes);
}

inline void forward_rows(const Call& call, const Problem& p) {
    const AttentionAttr a = call.node.attr.get<AttentionAttr>();
    const RowsResult out{places(call), call.saved(), static_cast<float*>(call.scratch), splits_for(p.rows, p.keys, a)};
    const int heads = heads_at_once(p.group, p.size);
    if (p.size > 256) launch_rows<1, 2>(call, p, out);
    else if (heads == 1) launch_rows<1, 1>(call, p, out);
    else if (heads == 2) launch_rows<2, 1>(call, p, out);
    else launch_rows<4, 1>(call, p, out);
    if (out.splits > 1)
        launch("attention: add splits", add_splits, {grid_of(p.rows * p.heads), row_threads}, stream_of(call), p, out);
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
