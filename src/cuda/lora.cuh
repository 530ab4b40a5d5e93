// lora.cuh - y = base + s drop(x) A^T B^T and its gradient, flat [dx | dA | dB]: formulas in src/ops/lora.cpp.
//
// u = drop(x) A^T {rows, r} and v = s dy B {rows, r} are kept for all rows, in what tensor cores read. drop(x) is made
// in chunks of rows of at most 32 MB; dA adds up over them in order. A few rows without dropout go through gemv.cuh.
#pragma once
#include "src/cuda/dropout.cuh"
#include "src/cuda/panels.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace lora_room {

constexpr int64_t chunk_bytes = int64_t(32) << 20;

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
inline void drop(const Call& call, int64_t first, int64_t count, const Values& x, const Places& to) {
    constexpr int threads = 256;
    const int64_t whole = first % piece_of == 0 && pieces_at(x) && pieces_at(to) ? count / piece_of : 0;
    if (count > 0)
        launch("drop", drop_kernel, {grid_for(call, whole ? whole : count, threads), threads}, stream_of(call), first,
               whole, count, x, to, drop_of(call, call.node.attr.get<LoraAttr>(), 4));
}

// One LoRA: sizes, sources and what lies in scratch, as much of it as sizes tell when there is no memory yet.
struct Path {
    Engine engine;
    int64_t rows, in, out, rank;
    LoraAttr attr;
    Values top, x, a, b;                               // top: base, or dy
    bool backward;
    DType type = DType::f32;                           // of what is kept for the products
    int64_t chunk = 0;                                 // rows of drop(x), 0: x itself is read
    Places u{}, v{}, dropped{}, packed{};              // packed: dy, for both of its products
    void* rest = nullptr;                              // scratch of a product

    Path(const Engine& e, const GraphImpl& g, const Node& node, bool is_back)
        : engine(e), rows(g.source(node, 1).shape[0]), in(g.source(node, 1).shape[1]),
          out(g.source(node, 0).shape[1]), rank(g.source(node, 2).shape[0]), attr(node.attr.get<LoraAttr>()),
          backward(is_back) {
        Values* const to[] = {&top, &x, &a, &b};
        for (int i = 0; i < 4; ++i) to[i]->type = g.source(node, i).storage;
        if (!engine.exact) type = DType::bf16;
        if (attr.p == 0) return;
        chunk = std::clamp(chunk_bytes / bytes_of(type, in) / 128 * 128, std::min<int64_t>(rows, 128), rows);
    }
    bool packs() const { return backward && type == DType::bf16 && top.type != DType::bf16; }
    bool is_small() const { return !backward && attr.p == 0 && rows <= gemv_room::most_vectors; }

    int64_t place(char* memory) {                      // the parts of scratch; returns their size
        int64_t at = 0;
        const auto take = [&](DType t, int64_t count) {
            const Places p{memory ? memory + at : nullptr, t};
            at += gemm_room::whole(bytes_of(t, count));
            return p;
        };
        u = take(is_small() ? DType::f32 : type, rows * rank);
        if (backward) v = take(type, rows * rank);
        if (chunk) dropped = take(type, chunk * in);
        if (packs()) packed = take(type, rows * gemm_room::ceil_div(out, 8) * 8);
        rest = memory ? memory + at : nullptr;
        return at;
    }
    static Values read(const Places& p, int64_t at = 0) {
        const Places from = places_from(p, at);
        return {from.data, from.type};
    }

    Product down(const Values& from, const Places& to, int64_t count) const {  // u = x A^T
        Product p;
        p.m = count, p.n = rank, p.k = in;
        p.a = from, p.lda = in;
        p.b = a, p.ldb = in;
        p.c = to, p.ldc = rank;
        return p;
    }
    Product up(const Places& y) const {                // y = base + s u B^T
        Product p;
        p.m = rows, p.n = out, p.k = rank;
        p.a = read(u), p.lda = rank;
        p.b = b, p.ldb = rank;
        p.c = y, p.ldc = out;
        p.alpha = attr.scale, p.beta = 1;
        p.d = top, p.ldd = out;
        return p;
    }
    Product v_of(const Values& dy, int64_t ld) const {                         // v = s dy B
        Product p;
        p.m = rows, p.n = rank, p.k = out;
        p.a = dy, p.lda = ld;
        p.b = b, p.ldb = rank, p.b_across = true;
        p.c = v, p.ldc = rank;
        p.alpha = attr.scale;
        return p;
    }
    Product da_of(const Values& from, const Values& some_v, const Places& da, int64_t count) const {   // dA = v^T x
        Product p;
        p.m = rank, p.n = in, p.k = count;
        p.a = some_v, p.lda = rank, p.a_across = true;
        p.b = from, p.ldb = in, p.b_across = true;
        p.c = da, p.ldc = in;
        return p;
    }
    Product db_of(const Values& dy, int64_t ld, const Places& db) const {      // dB = s dy^T u
        Product p;
        p.m = out, p.n = rank, p.k = rows;
        p.a = dy, p.lda = ld, p.a_across = true;
        p.b = read(u), p.ldb = rank, p.b_across = true;
        p.c = db, p.ldc = rank;
        p.alpha = attr.scale;
        return p;
    }
    Product dx_of(const Places& dx) const {            // dx = v A
        Product p;
        p.m = rows, p.n = in, p.k = rank;
        p.a = read(v), p.lda = rank;
        p.b = a, p.ldb = in, p.b_across = true;
        p.c = dx, p.ldc = in;
        return p;
    }
    Values dy() const { return packs() ? Values{packed.data, type} : top; }
    int64_t dy_ld() const { return packs() ? gemm_room::ceil_div(out, 8) * 8 : out; }

    // Of any of its products. Chunks are of two sizes.
    int64_t scratch() {
        int64_t most = 0;
        const auto want = [&](const Product& p) { most = std::max(most, product_scratch(engine, p)); };
        const int64_t own = place(nullptr), step = chunk ? chunk : rows, last = rows % std::max<int64_t>(step, 1);
        const Values from = chunk ? read(dropped) : x;
        for (const int64_t count : {step, last ? last : step}) {
            want(down(from, u, count));
            if (backward) want(da_of(from, read(v), {}, count));
        }
        if (!backward) want(up({nullptr, type}));
        if (backward) want(v_of(dy(), dy_ld())), want(db_of(dy(), dy_ld(), {})), want(dx_of({}));
        return own + most;
    }
};

template <bool backward> int64_t scratch(const GraphImpl& g, const Node& node) {
    return Path(engine_of(g), g, node, backward).scratch();
}

inline Path path_of(const Call& call, bool backward) {
    Path path(engine_of(call), call.graph, call.node, backward);
    path.top = values(call, 0), path.x = values(call, 1), path.a = values(call, 2), path.b = values(call, 3);
    path.place(static_cast<char*>(call.scratch));
    return path;
}

// f(first row, rows, values of x under the mask) for all chunks.
template <class F> void for_chunks(const Call& call, const Path& path, const F& f) {
    if (!path.chunk) return f(int64_t(0), path.rows, path.x);
    for (int64_t row = 0; row < path.rows; row += path.chunk) {
        const int64_t rows = std::min(path.chunk, path.rows - row);
        drop(call, row * path.in, rows * path.in, path.x, path.dropped);
        f(row, rows, Path::read(path.dropped));
    }
}

inline void run(const Call& call) {
    const Path path = path_of(call, false);
    const WeightRef a = call.matrix(2), b = call.matrix(3);
    device_of(call).counted.add(2 * path.rows * path.rank * (path.in + path.out), a.bytes() + b.bytes());
    if (path.is_small()) {
        gemv(path.engine, path.down(path.x, path.u, path.rows), a, nullptr);
        gemv(path.engine, path.up(places(call)), b, nullptr);
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
    device_of(call).counted.add(2 * path.rows * path.rank * (2 * factors + path.in), 2 * path.rank * factors * 4);
    const Places dx = places(call), da = places_from(dx, path.rows * path.in),
                 db = places_from(da, path.rank * path.in);
    if (path.packs()) {
        const gemm_room::Side side{path.top, path.out, false, path.rows, path.out};
        char* to = static_cast<char*>(path.packed.data);
        gemm_room::factor_of(path.engine, side, to);
    }
    product(call, path.v_of(path.dy(), path.dy_ld()), path.rest);
    for_chunks(call, path, [&](int64_t row, int64_t rows, const Values& x) {
        product(call, path.down(x, places_from(path.u, row * path.rank), rows), path.rest);
        Product p = path.da_of(x, Path::read(path.v, row * path.rank), da, rows);
        p.beta = row > 0 ? 1.0f : 0.0f;
        product(call, p, path.rest);
    });
    product(call, path.db_of(path.dy(), path.dy_ld(), db), path.rest);
    product(call, path.dx_of(dx), path.rest);
    if (path.attr.p > 0) drop(call, 0, path.rows * path.in, {dx.data, dx.type}, dx);
}

}  // namespace lora_room
}  // namespace cuda

inline const Kernel lora_cuda{cuda::lora_room::run, cuda::lora_room::scratch<false>};
inline const Kernel lora_back_cuda{cuda::lora_room::back, cuda::lora_room::scratch<true>};

}}  // namespace qlora
