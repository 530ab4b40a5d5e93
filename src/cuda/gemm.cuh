// gemm.cuh - matrix products: C {m, n} = alpha * A {m, k} B {k, n} + beta * D, whose factors are stored in 16 or 32
// bits with either of their dimensions contiguous.
//
// Three engines. With Compute::f32, on devices before sm_80 and for little work: f32 (gemm_f32.cuh). Else tensor cores,
// on sm_90 by warpgroups (gemm_hopper.cuh) where A lies along the inner dimension and both others are long enough,
// otherwise by warps (gemm_mma.cuh); factors that they cannot read as they lie are packed in scratch first. Which
// engine, which tiles and how many stretches of the inner dimension depends on the device and on the sizes, so that
// every run adds in one order.
// Rooms count the work themselves: device_of(call).counted.
#pragma once
#include "src/cuda/gemm_hopper.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemm_room {

enum class Tiling : uint8_t { f32, rank, slim, medium, large, narrow, wide };
struct TileSize { int64_t m, n; };
inline TileSize size_of(Tiling t) {
    switch (t) {
        case Tiling::rank: return {Rank::bm, Rank::bn};
        case Tiling::slim: return {Slim::bm, Slim::bn};
        case Tiling::large: return {Large::bm, Large::bn};
        case Tiling::narrow: return {Narrow::bm, Narrow::bn};
        case Tiling::wide: return {Wide::bm, Wide::bn};
        default: return {Medium::bm, Medium::bn};
    }
}
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t whole(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

// A factor for tensor cores.
struct Side {
    Values from;
    int64_t ld;
    bool across;
    int64_t lines, line;
    bool fits() const {
        return from.type == DType::bf16 && reinterpret_cast<size_t>(from.data) % 16 == 0 && ld % 8 == 0 &&
               line % 8 == 0;
    }
    int64_t packed_ld() const { return ceil_div(line, 8) * 8; }
    int64_t bytes() const { return fits() ? 0 : whole(lines * packed_ld() * 2); }
};

// How a product is computed.
struct Way {
    Tiling tiling = Tiling::f32;
    bool swapped = false;                              // C^T = B^T A^T: the shorter dimension is that of the rows
    int64_t m = 0, n = 0;                              // as they are then, and so are a and b
    Side a{}, b{};
    int stretches = 1;
    int64_t packed() const { return a.bytes() + b.bytes(); }
    int64_t bytes() const {
        return tiling == Tiling::f32 ? 0 : packed() + (stretches > 1 ? whole(stretches * m * n * 4) : 0);
    }
};

inline Way way_with(Tiling tiling, const Product& p) {
    constexpr int64_t few_blocks = 128, least_stretch = 512;
    const bool by_warpgroups = tiling == Tiling::narrow || tiling == Tiling::wide;
    const int64_t enough_blocks = by_warpgroups ? hopper_processors : 256;
    Way w;
    w.tiling = tiling;
    if (tiling == Tiling::f32) return w;
    const auto side = [&](const Values& from, int64_t ld, bool across, int64_t outer) {
        return Side{from, ld, across, across ? p.k : outer, across ? outer : p.k};
    };
    w.a = side(p.a, p.lda, p.a_across, p.m);
    w.b = side(p.b, p.ldb, p.b_across, p.n);
    w.m = p.m, w.n = p.n;
    w.swapped = p.n < p.m && (tiling == Tiling::rank || tiling == Tiling::slim);
    if (w.swapped) std::swap(w.a, w.b), std::swap(w.m, w.n);
    const TileSize t = size_of(tiling);
    const int64_t tiles = ceil_div(w.m, t.m) * ceil_div(w.n, t.n);
    if (tiles < few_blocks) w.stretches = int(std::clamp(p.k / least_stretch, int64_t(1), enough_blocks / tiles));
    return w;
}

// Of the warpgroups' tiles, those that a device is done with first: it computes so many at a time, whole ones, and
// narrow ones cost a little more than half.
inline Tiling warpgroup_tiling(int64_t m, int64_t n) {
    const auto rounds = [&](Tiling t) {
        return ceil_div(ceil_div(m, size_of(t).m) * ceil_div(n, size_of(t).n), hopper_processors);
    };
    return rounds(Tiling::narrow) * 4 < rounds(Tiling::wide) * 7 ? Tiling::narrow : Tiling::wide;
}

inline Way way_of(const Engine& engine, const Product& p) {
    constexpr int64_t most = int64_t(1) << 30, little = int64_t(1) << 18;
    if (engine.exact || engine.capability < 80 || std::max({p.m, p.n, p.k}) > most || p.k < 1 ||
        double(p.m) * double(p.n) * double(p.k) < double(little))
        return way_with(Tiling::f32, p);
    const int64_t least = std::min(p.m, p.n);
    if (least <= Rank::bm) return way_with(Tiling::rank, p);
    if (least <= Slim::bm) return way_with(Tiling::slim, p);
    if (least >= Narrow::bm && !p.a_across && has_warpgroups(engine)) return way_with(warpgroup_tiling(p.m, p.n), p);
    // A block of the large tile takes 144 KB of shared memory. Weight gradients take the other one.
    const bool has_memory = engine.capability == 80 || (engine.capability >= 90 && engine.capability < 120);
    const bool many = ceil_div(p.m, Large::bm) * ceil_div(p.n, Large::bn) >= 128;
    return way_with(has_memory && many && !p.a_across ? Tiling::large : Tiling::medium, p);
}

template <class T> void run_tiles(const Engine& engine, const Job& job, const Way& w) {
    const dim3 grid = grid_of(ceil_div(w.m, T::bm) * ceil_div(w.n, T::bn), w.stretches);
    const auto start = [&](auto kernel, int64_t shared) {
        launch("product", kernel, {grid, T::threads, shared}, engine.stream, job);
    };
    if constexpr (!std::is_same_v<T, Large>) {
        if (w.a.across && w.b.across) return start(tensor_cores<T, true, true>, T::shared(true, true));
        if (w.a.across) return start(tensor_cores<T, true, false>, T::shared(true, false));
    }
    if (w.b.across) start(tensor_cores<T, false, true>, T::shared(false, true));
    else start(tensor_cores<T, false, false>, T::shared(false, false));
}

template <class T> void run_warpgroups(const Engine& engine, const Job& job, const Way& w) {
    const dim3 grid = grid_of(ceil_div(w.m, T::bm) * ceil_div(w.n, T::bn), w.stretches);
    const TensorMap a = tensor_map(job.a.data, w.a.lines, w.a.line, job.a.ld, T::bm);
    const TensorMap b = tensor_map(job.b.data, w.b.lines, w.b.line, job.b.ld, w.b.across ? slice : T::bn);
    const auto kernel = w.b.across ? warpgroups<T, true> : warpgroups<T, false>;
    launch("product", kernel, {grid, T::all_threads, T::shared}, engine.stream, a, b, job);
}

inline dim3 grid_of_items(int64_t count) { return grid_of(std::clamp<int64_t>(ceil_div(count, 256), 1, 1024)); }

// Where tensor cores read a factor: itself, or a copy at `scratch`, which moves on.
inline Factor factor_of(const Engine& engine, const Side& s, char*& scratch) {
    if (s.fits()) return {static_cast<const uint16_t*>(s.from.data), s.ld};
    uint16_t* const to = reinterpret_cast<uint16_t*>(scratch);
    scratch += s.bytes();
    const bool fours = s.from.type == DType::f32 && is_in_fours(s.from.data, DType::f32, s.ld);
    launch("pack a factor", pack_lines, {grid_of_items(s.lines * s.packed_ld() / 8), 256}, engine.stream, s.from, s.ld,
           fours, s.lines, s.line, to);
    return {to, s.packed_ld()};
}

inline void run(const Engine& engine, const Product& p, const Way& w, void* scratch) {
    if (w.tiling == Tiling::f32) return run_f32(engine, p);
    char* memory = static_cast<char*>(scratch);
    Job job{};
    job.a = factor_of(engine, w.a, memory);
    job.b = factor_of(engine, w.b, memory);
    job.m = int(w.m), job.n = int(w.n), job.k = int(p.k);
    job.put = finish_of(p, w.swapped);
    job.live = p.live;
    if (w.stretches > 1) job.parts = reinterpret_cast<float*>(memory);
    switch (w.tiling) {
        case Tiling::rank: run_tiles<Rank>(engine, job, w); break;
        case Tiling::slim: run_tiles<Slim>(engine, job, w); break;
        case Tiling::large: run_tiles<Large>(engine, job, w); break;
        case Tiling::narrow: run_warpgroups<Narrow>(engine, job, w); break;
        case Tiling::wide: run_warpgroups<Wide>(engine, job, w); break;
        default: run_tiles<Medium>(engine, job, w);
    }
    if (job.parts)
        launch("add the stretches of a product", add_stretches, {grid_of_items(w.m * w.n), 256}, engine.stream,
               job.parts, w.stretches, job.m, job.n, job.put);
}

}  // namespace gemm_room

// Bytes of scratch that product() wants for a product of these sizes, types and orientations; data may still be null.
inline int64_t product_scratch(const Engine& engine, const Product& p) { return gemm_room::way_of(engine, p).bytes(); }
inline int64_t product_scratch(const GraphImpl& g, const Product& p) {
    return product_scratch(engine_of(g), p);
}

// Starts it. C overlaps neither factor; D may be C. Without its scratch, or where a factor is not as aligned as memory
// of the device begins and scratch has no room for a copy, it goes a slower way.
inline void product(const Engine& engine, const Product& p, void* scratch = nullptr) {
    using namespace gemm_room;
    if (p.m <= 0 || p.n <= 0) return;
    Way way = way_of(engine, p);
    Product aligned = p;
    aligned.a.data = aligned.b.data = nullptr;
    const int64_t bytes = scratch ? product_scratch(engine, aligned) : 0;
    if (way.bytes() > bytes) way.stretches = 1;
    if (way.bytes() > bytes) way = way_with(Tiling::f32, p);
    run(engine, p, way, scratch);
}
inline void product(const Call& call, const Product& p, void* scratch = nullptr) {
    product(engine_of(call), p, scratch);
}

}  // namespace cuda
}}  // namespace qlora
