// gemm.cuh - matrix products: C {m, n} = alpha * A {m, k} B {k, n} + beta * D, whose factors are stored in 16 or 32
// bits with either of their dimensions contiguous.
//
// Three engines. With Compute::f32, on devices before sm_80 and for little work: f32 (gemm_f32.cuh). Else tensor cores,
// on sm_90 by warpgroups (gemm_hopper.cuh) where A lies along the inner dimension and both others are long enough,
// otherwise by warps (gemm_mma.cuh); factors that they cannot read as they lie are packed in scratch first. Which
// engine, which tiles and how many stretches of the inner dimension: plan/products.h.
// Rooms count the work themselves: device_of(call).counted.
#pragma once
#include "src/cuda/gemm_hopper.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemm_room {

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
