// rope.cuh - the pairs of each head turn by positions[row] * inverse_frequencies[pair]: src/ops/rope.cpp.
//
// Block = a row. Its threads first put sines and cosines into shared memory, once for all heads, then each turns units:
// a piece of 8 elements with the 8 that are their partners, a piece of 4 adjacent pairs, or, where heads are not
// aligned, one pair. The part of a head that does not turn is copied one by one.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace rope_room {

struct Rope {
    int64_t rows;
    int n, head, pairs;                                // elements of a row and of a head
    float cosine, sine;                                // factors: the magnitude, and backwards is -
    float growth;
    int64_t period;                                    // 0: heads are as long everywhere
    const int32_t* positions;
    Values frequencies, x;
    Places y;
};

// What a thread turns at a time.
enum class Unit { pair, adjacent_pair, halves, adjacent };

__device__ inline void turn(float& a, float& b, float c, float s) {
    const float before = a;
    a = before * c - b * s;
    b = b * c + before * s;
}

template <Unit unit> __global__ void rope_kernel(Rope r) {
    constexpr int pairs_a_unit = unit == Unit::halves ? piece_of : unit == Unit::adjacent ? piece_of / 2 : 1;
    QLORA_DYNAMIC_SHARED(float, cosines);              // {pairs}, then sines
    float* const sines = cosines + r.pairs;
    const int a_head = r.pairs / pairs_a_unit, units = r.n / r.head * a_head, rest = r.head - 2 * r.pairs;
    for (int64_t row = blockIdx.x; row < r.rows; row += gridDim.x) {
        __syncthreads();                               // the row before is done with the table
        const float position = float(r.positions[row]);
        const float passing = r.period > 0 ? 1 + r.growth * logf(float(1 + r.positions[row] / r.period)) : 1;
        for (int i = int(threadIdx.x); i < r.pairs; i += int(blockDim.x)) {
            float s, c;
            sincosf(position * r.frequencies[i], &s, &c);
            cosines[i] = c * (r.cosine * passing);
            sines[i] = s * (r.sine * passing);
        }
        __syncthreads();
        for (int u = int(threadIdx.x); u < units; u += int(blockDim.x)) {
            const int head = u / a_head, pair = (u - head * a_head) * pairs_a_unit;
            const int64_t start = row * r.n + int64_t(head) * r.head;
            const float *c = cosines + pair, *s = sines + pair;
            if constexpr (unit == Unit::halves) {
                const RawPiece raw_a = load_raw(r.x, start + pair), raw_b = load_raw(r.x, start + r.pairs + pair);
                Piece a = converted(raw_a, r.x.type), b = converted(raw_b, r.x.type);
                for (int j = 0; j < piece_of; ++j) turn(a.v[j], b.v[j], c[j], s[j]);
                store_piece(r.y, start + pair, a);
                store_piece(r.y, start + r.pairs + pair, b);
            } else if constexpr (unit == Unit::adjacent) {
                Piece p = load_piece(r.x, start + 2 * pair);
                for (int j = 0; j < piece_of / 2; ++j) turn(p.v[2 * j], p.v[2 * j + 1], c[j], s[j]);
                store_piece(r.y, start + 2 * pair, p);
            } else {
                const int64_t at = start + (unit == Unit::pair ? pair : 2 * pair);
                const int64_t partner = at + (unit == Unit::pair ? r.pairs : 1);
                float a = r.x[at], b = r.x[partner];
                turn(a, b, *c, *s);
                r.y.set(at, a);
                r.y.set(partner, b);
            }
        }
        for (int i = int(threadIdx.x); i < r.n / r.head * rest; i += int(blockDim.x)) {
            const int64_t at = row * r.n + int64_t(i / rest) * r.head + 2 * r.pairs + i % rest;
            r.y.set(at, r.x[at] * passing);
        }
    }
}

inline void run(const Call& call) {
    const RopeAttr a = call.node.attr.get<RopeAttr>();
    const int64_t n = last_dim(call.node), pairs = a.rotated / 2;
    if (n > 0x3fffffff || pairs > 4096)                // indices of a row are 32-bit, 32 KiB hold the table
        fail(Errc::unsupported, "rope: ", a.rotated, " rotated dimensions in rows of ", n, " on a CUDA device");
    const float sine = a.inverse ? -a.magnitude : a.magnitude;
    const Rope r{leading(call.node), int(n),    int(a.head_dim),      int(pairs),      a.magnitude,     sine,
                 a.growth,           a.period, call.in<int32_t>(1), values(call, 2), values(call, 0), places(call)};
    const bool aligned = pieces_at(r.x) && pieces_at(r.y) && a.head_dim % piece_of == 0;
    const bool pieces = aligned && pairs % (a.adjacent ? piece_of / 2 : piece_of) == 0;
    const auto kernel = a.adjacent ? (pieces ? rope_kernel<Unit::adjacent> : rope_kernel<Unit::adjacent_pair>)
                                   : (pieces ? rope_kernel<Unit::halves> : rope_kernel<Unit::pair>);
    const int64_t units = n / (!pieces ? 2 : a.adjacent ? piece_of : 2 * piece_of);
    const int threads = int(std::clamp<int64_t>((units + 31) / 32 * 32, 32, 256));
    launch("rope", kernel, {grid_of(std::min<int64_t>(r.rows, 0x7fffffff)), threads, pairs * 8}, stream_of(call), r);
}

}  // namespace rope_room
}  // namespace cuda

inline const Kernel rope_cuda{cuda::rope_room::run};

}}  // namespace qlora
