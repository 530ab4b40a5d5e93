// top_k.cuh - the k largest numbers of each row and their columns: src/ops/top_k.cpp.
//
// Rounds, until one piece is left of each row: block x = a piece, a thread an entry of it, which counts how many others
// come before it; those with fewer than k go to the place of that count. Pieces are at least four times k, so that each
// round leaves a quarter or less. Entries that are equal come in the order of their columns in every round.
#pragma once
#include "src/cuda/plan/rows.h"
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace top_k_room {

constexpr int threads = 256;
constexpr int64_t most_piece = 4 * most_top_k;

// Comparing two of them is comparing the numbers; 0 is below all. -0 becomes 0, every NaN the largest.
__device__ inline uint32_t key_of(float v) {
    if (v != v) return 0xffffffffu;
    const uint32_t bits = __float_as_uint(v + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float number_of(uint32_t key) {
    if (key == 0xffffffffu) return __uint_as_float(0x7fc00000u);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// x, y: key and column.
struct Round {
    int64_t rows, n;                                   // of the entries
    int k, piece;
    Values numbers;                                    // of the first round: the numbers themselves ...
    const uint2* entries;                              // ... and of the others
    uint2* left;                                       // {rows, pieces, k}, of all but the last
    float* result;                                     // {rows, 2, k}, of the last
    int64_t pieces() const { return pieces_of(n, piece); }
};
static_assert(sizeof(uint2) == entry_bytes);

__device__ inline uint2 entry_at(const Round& r, int64_t row, int64_t i) {
    if (r.entries) return r.entries[row * r.n + i];
    return make_uint2(key_of(r.numbers[row * r.n + i]), uint32_t(i));
}

__device__ inline void put(const Round& r, int64_t row, int rank, const uint2& entry) {
    if (!r.result) {
        r.left[(row * gridDim.x + blockIdx.x) * r.k + rank] = entry;
        return;
    }
    r.result[row * 2 * r.k + rank] = number_of(entry.x);
    r.result[row * 2 * r.k + r.k + rank] = float(entry.y);
}

static __global__ void __launch_bounds__(threads) choose(Round r) {
    QLORA_SHARED(uint32_t, keys, most_piece);
    const int64_t first = int64_t(blockIdx.x) * r.piece;
    const int count = int(r.n - first < r.piece ? r.n - first : r.piece);
    for (int64_t row = blockIdx.y; row < r.rows; row += gridDim.y) {
        for (int i = int(threadIdx.x); i < count; i += threads) keys[i] = entry_at(r, row, first + i).x;
        __syncthreads();
        for (int i = int(threadIdx.x); i < count; i += threads) {
            const uint32_t mine = keys[i];
            int rank = 0;
            for (int j = 0; j < count; ++j) rank += keys[j] > mine || (keys[j] == mine && j < i);
            if (rank < r.k) put(r, row, rank, entry_at(r, row, first + i));
        }
        for (int i = count + int(threadIdx.x); i < r.k; i += threads) put(r, row, i, make_uint2(0, 0));
        __syncthreads();                               // the next row has the same place
    }
}

inline Round first_round(const GraphImpl& g, const Node& node) {
    const Node& x = g.source(node, 0);
    Round r{};
    r.rows = leading(x), r.n = last_dim(x);
    r.k = int(last_dim(node));
    r.piece = int(piece_for(r.k));
    return r;
}

inline void run(const Call& call) {
    Round r = first_round(call.graph, call.node);
    if (r.rows == 0) return;
    r.numbers = values(call, 0);
    uint2* place = static_cast<uint2*>(call.scratch);
    uint2* other = place + r.rows * r.pieces() * r.k;
    for (bool last = false; !last;) {
        last = r.pieces() == 1;
        r.left = last ? nullptr : place;
        r.result = last ? call.result() : nullptr;
        launch("top_k", choose, {grid_of(r.pieces(), std::min<int64_t>(r.rows, 65535)), threads}, stream_of(call), r);
        r.n = r.pieces() * r.k;
        r.entries = r.left;
        std::swap(place, other);
    }
}

}  // namespace top_k_room
}  // namespace cuda

inline const Kernel top_k_cuda{cuda::top_k_room::run, cuda::scratch_of(Op::top_k)};

}}  // namespace qlora
