// lora.cuh - y = base + s drop(x) A^T B^T and its gradients, flat [v | dA | dB], and dx: formulas in src/ops/lora.cpp.
//
// u = drop(x) A^T {rows, r} is kept for all rows, in what tensor cores read. drop(x) is made in chunks of rows of at
// most 32 MB; dA adds up over them in order. A few rows without dropout go through gemv.cuh.
#pragma once
#include "src/cuda/dropout.cuh"
#include "src/cuda/panels.cuh"
#include "src/cuda/plan/lora.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace lora_room {

// to[i] = element first + i of x under its mask. A thread takes pieces of 8, then what is left; to may be x.
static __global__ void drop_kernel(int64_t first, int64_t whole, int64_t count, Values x, Places to, Drop drop) {
    const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = int64_t(gridDim.x) * blockDim.x;
    const uint64_t now = drop.seed_now();
    for (int64_t i = thread; i < whole; i += step) {
        const int64_t e = first + i * piece_of;
        Piece piece = load_piece(x, e);
        drop.four(piece.v, now, e);
        drop.four(piece.v + 4, now, e + 4);
        store_piece(to, i * piece_of, piece);
    }
    for (int64_t i = whole * piece_of + thread; i < count; i += step) to.set(i, drop.one(x[first + i], now, first + i));
}
inline void drop(const Call& call, int step, int64_t first, int64_t count, const Values& x, const Places& to) {
    constexpr int threads = 256;
    const int64_t whole = first % piece_of == 0 && pieces_at(x) && pieces_at(to) ? count / piece_of : 0;
    if (count > 0)
        launch("drop", drop_kernel, {grid_for(call, whole ? whole : count, threads), threads}, stream_of(call), first,
               whole, count, x, to, drop_of(call, call.node.attr.get<LoraAttr>(), step));
}

inline Path path_of(const Call& call, bool backward) {
    Path path(device_of(call), call.graph, call.node, backward);
    path.top = values(call, 0), path.x = values(call, 1), path.a = values(call, 2), path.b = values(call, 3);
    path.place(static_cast<char*>(call.scratch));
    return path;
}

// f(first row, rows, values of x under the mask) for all chunks.
template <class F> void for_chunks(const Call& call, const Path& path, const F& f) {
    if (!path.chunk) return f(int64_t(0), path.rows, path.x);
    for (int64_t row = 0; row < path.rows; row += path.chunk) {
        const int64_t rows = std::min(path.chunk, path.rows - row);
        drop(call, 4, row * path.in, rows * path.in, path.x, path.dropped);
        f(row, rows, Path::read(path.dropped));
    }
}

inline void run(const Call& call) {
    const Path path = path_of(call, false);
    const WeightRef a = call.matrix(2), b = call.matrix(3);
    device_of(call).counted.add(2 * path.rows * path.rank * (path.in + path.out), a.bytes() + b.bytes());
    if (path.is_small()) {
        gemv(engine_of(call), path.down(path.x, path.u, path.rows), a, nullptr);
        gemv(engine_of(call), path.up(places(call)), b, nullptr);
        return;
    }
    for_chunks(call, path, [&](int64_t row, int64_t rows, const Values& x) {
        product(call, path.down(x, places_from(path.u, row * path.rank), rows), path.rest);
    });
    product(call, path.up(places(call)), path.rest);
}

inline void back(const Call& call) {
    const Path path = path_of(call, true);
    const int64_t factors = path.in + path.out;
    device_of(call).counted.add(2 * path.rows * path.rank * 2 * factors, 2 * path.rank * factors * 4);
    const Places v = places(call), da = places_from(v, path.rows * path.rank),
                 db = places_from(da, path.rank * path.in);
    if (path.packs()) {
        const gemm_room::Side side{path.top, path.out, false, path.rows, path.out};
        char* to = static_cast<char*>(path.packed.data);
        gemm_room::factor_of(engine_of(call), side, to);
    }
    product(call, path.v_of(path.dy(), path.dy_ld(), v), path.rest);
    for_chunks(call, path, [&](int64_t row, int64_t rows, const Values& x) {
        product(call, path.down(x, places_from(path.u, row * path.rank), rows), path.rest);
        Product p = path.da_of(x, Path::read(v, row * path.rank), da, rows);
        p.beta = row > 0 ? 1.0f : 0.0f;
        product(call, p, path.rest);
    });
    product(call, path.db_of(path.dy(), path.dy_ld(), db), path.rest);
}

inline void dx(const Call& call) {
    Product p = dx_of(call.graph, call.node);
    p.a = values(call, 0), p.b = values(call, 1), p.c = places(call);
    if (call.has(2)) p.d = values(call, 2);
    device_of(call).counted.add(2 * p.m * p.n * p.k, p.k * p.n * 4);
    product(call, p, call.scratch);
    if (call.node.attr.get<LoraAttr>().p > 0) drop(call, 3, 0, p.m * p.n, {p.c.data, p.c.type}, p.c);
}

}  // namespace lora_room
}  // namespace cuda

inline const Kernel lora_cuda{cuda::lora_room::run, cuda::scratch_of(Op::lora)};
inline const Kernel lora_back_cuda{cuda::lora_room::back, cuda::scratch_of(Op::lora_back)};
inline const Kernel lora_dx_cuda{cuda::lora_room::dx, cuda::scratch_of(Op::lora_dx)};

}}  // namespace qlora
