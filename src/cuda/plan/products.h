// products.h - matrix products: C {m, n} = alpha * A {m, k} B {k, n} + beta * D, which engine computes one, with which
// tiles, and its scratch: copies of factors that tensor cores cannot read as they lie, and sums of stretches of the
// inner dimension. It depends on the device and on the sizes, so that every run adds in one order.
#pragma once
#include "src/cuda/plan/facts.h"
#include "src/cuda/plan/values.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

struct Product {
    int64_t m = 0, n = 0, k = 0;
    Values a;                                          // (i, x) at a[i * lda + x], or a[x * lda + i] when across
    int64_t lda = 0;
    bool a_across = false;
    Values b;    // (x, j) at b[j * ldb + x], as W^T of a stored W {n, k}; or b[x * ldb + j] when across
    int64_t ldb = 0;
    bool b_across = false;
    Places c;                                          // (i, j) at c[i * ldc + j]
    int64_t ldc = 0;
    float alpha = 1, beta = 0;                         // beta 0: what D holds is not read, be it NaN
    Values d;                                          // of C's shape; without data: C itself
    int64_t ldd = 0;
    // On the device, may be null: only the first so many rows of A, which lies along, and of C count. Tiles of others
    // are left out, and what they hold in C afterwards is nobody's business.
    const int32_t* live = nullptr;
};

namespace gemm_room {

struct TileSize { int m, n; };
constexpr TileSize large_tile{128, 256}, medium_tile{128, 128}, slim_tile{64, 128}, rank_tile{16, 128},    // of warps
    wide_tile{128, 256}, narrow_tile{128, 128};        // of warpgroups
constexpr int64_t hopper_processors = 132;             // of an H100, a block each at a time

enum class Tiling : uint8_t { f32, rank, slim, medium, large, narrow, wide };
inline TileSize size_of(Tiling t) {
    switch (t) {
        case Tiling::rank: return rank_tile;
        case Tiling::slim: return slim_tile;
        case Tiling::large: return large_tile;
        case Tiling::narrow: return narrow_tile;
        case Tiling::wide: return wide_tile;
        default: return medium_tile;
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

inline bool has_warpgroups(const Facts& on) { return on.capability == 90 && on.warpgroups; }

inline Way way_of(const Facts& on, const Product& p) {
    constexpr int64_t most = int64_t(1) << 30, little = int64_t(1) << 18;
    if (on.exact || on.capability < 80 || std::max({p.m, p.n, p.k}) > most || p.k < 1 ||
        double(p.m) * double(p.n) * double(p.k) < double(little))
        return way_with(Tiling::f32, p);
    const int64_t least = std::min(p.m, p.n);
    if (least <= rank_tile.m) return way_with(Tiling::rank, p);
    if (least <= slim_tile.m) return way_with(Tiling::slim, p);
    if (least >= narrow_tile.m && !p.a_across && has_warpgroups(on)) return way_with(warpgroup_tiling(p.m, p.n), p);
    // A block of the large tile takes 144 KB of shared memory. Weight gradients take the other one.
    const bool has_memory = on.capability == 80 || (on.capability >= 90 && on.capability < 120);
    const bool many = ceil_div(p.m, large_tile.m) * ceil_div(p.n, large_tile.n) >= 128;
    return way_with(has_memory && many && !p.a_across ? Tiling::large : Tiling::medium, p);
}

}  // namespace gemm_room

// Bytes of scratch that product() wants for a product of these sizes, types and orientations; data may still be null.
inline int64_t product_scratch(const Facts& on, const Product& p) { return gemm_room::way_of(on, p).bytes(); }

}  // namespace cuda
}}  // namespace qlora
