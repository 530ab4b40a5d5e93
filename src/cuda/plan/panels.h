// panels.h - products with a matrix W {out, in} as it is stored, of any type: of few rows of x, which read W as it is,
// and of many, for which a panel of W is decoded at a time. Their scratch: x packed for tensor cores, and a panel.
#pragma once
#include "src/cuda/plan/products.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemv_room {

constexpr int most_vectors = 8;                        // rows of x that read W as it is
constexpr int most_matrices = 4;                       // of one x in one launch
constexpr int run = 64;                                // columns of a 4-bit W that tensor cores take at a time

inline bool takes_pairs(const Facts& on, const WeightRef& w) {
    return !on.exact && on.capability >= 80 && is_4bit(w.dtype) && w.cols % run == 0 &&
           w.cols / run < (1 << 26) && w.quant.block % run == 0 && is_power_of_two(w.quant.block) &&
           is_power_of_two(w.quant.block2) && aligned_to(w.data, 8);
}
inline bool reads_pairs(const Values& x, int64_t ldx) {
    return x.type == DType::bf16 && aligned_to(x.data, 16) && ldx % 8 == 0;
}

// May these go in one launch? They read the same x, and their codebooks are one: the backend keeps one of each kind.
inline bool are_alike(const WeightRef& a, const WeightRef& b) {
    return a.dtype == b.dtype && a.cols == b.cols && !a.quant.absmax == !b.quant.absmax &&
           a.quant.codebook == b.quant.codebook && a.quant.absmax_map == b.quant.absmax_map;
}

}  // namespace gemv_room

// What the product with few vectors reads and writes: m = rows of X, n = rows of W, k = cols of W; X is A, C as there;
// `b` is not looked at.
inline int64_t gemv_scratch(const Facts& on, const Product& p, const WeightRef& w) {
    return gemv_room::takes_pairs(on, w) && !gemv_room::reads_pairs(p.a, p.lda) ? p.m * p.k * 2 : 0;
}

namespace panels_room {

inline int64_t panel_bytes = int64_t(24) << 20;         // tests lower it
constexpr int64_t step = 256;    // rows or columns of a panel are a multiple of it: whole tiles, whole blocks of W

inline bool is_read_in_place(const Facts& on, DType type) {
    return type == DType::bf16 || (on.exact && (type == DType::f32 || type == DType::f16));
}

// A panel covers `size` of the `count` lines (rows or columns of W) of `length` elements.
struct Panels {
    DType type;
    int64_t count, length, size;
    int64_t bytes() const { return gemm_room::whole(bytes_of(type, size * length)); }
};
inline Panels panels_of(const Facts& on, int64_t count, int64_t length) {
    Panels p{on.exact ? DType::f32 : DType::bf16, count, length, count};
    const int64_t bytes = bytes_of(p.type, std::max<int64_t>(length, 1));
    const int64_t most = std::max(panel_bytes / bytes / step, int64_t(1)) * step;
    if (count > most) {                                // of equal sizes
        const int64_t panels = gemm_room::ceil_div(count, most);
        p.size = std::min(gemm_room::ceil_div(gemm_room::ceil_div(count, panels), step) * step, count);
    }
    return p;
}

// x as products of several panels read it: packed once, where they would pack it every time.
inline gemm_room::Side packed_once(const Facts& on, const Product& p) {
    const gemm_room::Side side{p.a, p.lda, p.a_across, p.m, p.k};
    const bool packs = gemm_room::way_of(on, p).tiling != gemm_room::Tiling::f32 && !side.fits();
    return packs ? side : gemm_room::Side{};
}

// The product with all of W, or with one panel of it; pointers of W are not set.
inline Product whole_product(const Product& p, bool to_x) {
    Product q = p;
    q.b = {nullptr, DType::bf16};
    q.ldb = to_x ? p.n : p.k;
    q.b_across = to_x;
    return q;
}
inline int64_t panel_scratch(const Facts& on, const Product& whole, const Panels& panels) {
    int64_t bytes = 0;
    const int64_t rest = panels.count % panels.size;
    for (const int64_t n : {panels.size, rest ? rest : panels.size}) {
        Product q = whole;
        q.n = n;
        q.b.type = panels.type;
        q.ldb = whole.b_across ? n : whole.k;
        q.a.data = nullptr;
        const gemm_room::Side once = packed_once(on, whole);
        if (once.lines) q.a.type = DType::bf16, q.lda = once.packed_ld();
        bytes = std::max(bytes, product_scratch(on, q));
    }
    return bytes;
}

}  // namespace panels_room

// p.a is x (or dy) {m, k}, p.n the columns of y (or dx), p.b is not looked at. to_x: the product with W, not W^T.
inline int64_t product_with_stored_scratch(const Facts& on, const Product& p, const WeightRef& w, bool to_x) {
    using namespace panels_room;
    if (!to_x && p.m <= gemv_room::most_vectors) return gemv_scratch(on, p, w);
    Product all = whole_product(p, to_x);
    if (is_read_in_place(on, w.dtype)) {
        all.b.type = w.dtype;
        return product_scratch(on, all);
    }
    const Panels panels = panels_of(on, p.n, p.k);
    return panels.bytes() + packed_once(on, all).bytes() + panel_scratch(on, all, panels);
}

}  // namespace cuda
}}  // namespace qlora
