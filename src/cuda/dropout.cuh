// dropout.cuh - y[e] = keep(e) ? x[e] / (1 - p) : 0: src/ops/dropout.cpp, and the mask of src/cpu/drop.h bit for bit.
//
// Thread = pieces of 8 elements, for which it draws two counters of Philox. The step is read in the kernel: it lies on
// the device, and what was started before may still be writing it.
#pragma once
#include "src/base/rng.h"
#include "src/cuda/map.cuh"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// What decides and what is kept is multiplied by, for kernels that compute the mask themselves.
struct Drop {
    uint64_t seed, stream;
    const int32_t* step;                               // {2}, on the device: lower and upper half
    int32_t least;                                     // kept: the upper 24 bits of a word are at least so many
    float factor;
    __device__ uint64_t seed_now() const {
        return seed + (uint64_t(uint32_t(step[1])) << 32 | uint32_t(step[0]));
    }
    __device__ float at(float x, uint32_t word) const { return int32_t(word >> 8) >= least ? x * factor : 0; }
    __device__ float one(float x, uint64_t now, int64_t e) const {               // now: seed_now()
        const Random4 r = philox(now, stream, uint64_t(e) >> 2);                 // no index: words stay in registers
        return at(x, e & 2 ? (e & 1 ? r.v[3] : r.v[2]) : (e & 1 ? r.v[1] : r.v[0]));
    }
    // 4 elements from e on, a multiple of 4
    __device__ void four(float* x, uint64_t now, int64_t e) const {
        const Random4 r = philox(now, stream, uint64_t(e) >> 2);
        for (int j = 0; j < 4; ++j) x[j] = at(x[j], r.v[j]);
    }
};
// Of DropoutAttr and LoraAttr; source i of the call is the step.
template <class A> Drop drop_of(const Call& call, const A& a, int i) {
    return {a.seed, a.stream, call.in<int32_t>(i), int32_t(std::ceil(double(a.p) * 0x1p24)), 1 / (1 - a.p)};
}

namespace dropout_room {

static __global__ void dropout_kernel(int64_t whole, int64_t count, Values x, Places y, Drop drop) {
    const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = int64_t(gridDim.x) * blockDim.x;
    const uint64_t now = drop.seed_now();
    for (int64_t p = thread; p < whole; p += step) {
        const int64_t e = p * piece_of;
        Piece piece = load_piece(x, e);
        drop.four(piece.v, now, e);
        drop.four(piece.v + 4, now, e + 4);
        store_piece(y, e, piece);
    }
    for (int64_t e = whole * piece_of + thread; e < count; e += step) y.set(e, drop.one(x[e], now, e));
}

inline void run(const Call& call) {
    constexpr int threads = 256;
    const Values x = values(call, 0);
    const Places y = places(call);
    const int64_t count = call.node.elements(), whole = pieces_at(x) && pieces_at(y) ? count / piece_of : 0;
    launch("dropout", dropout_kernel, {grid_for(call, whole ? whole : count, threads), threads}, stream_of(call), whole,
           count, x, y, drop_of(call, call.node.attr.get<DropoutAttr>(), 1));
}

}  // namespace dropout_room
}  // namespace cuda

inline const Kernel dropout_cuda{cuda::dropout_room::run};

}}  // namespace qlora
