// lora.h - the low-rank path y = base + s drop(x) A^T B^T and its gradient: sizes, products, and what lies in scratch.
#pragma once
#include "src/cuda/plan/panels.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace lora_room {

constexpr int64_t chunk_bytes = int64_t(32) << 20;

// One LoRA: sizes, sources and what lies in scratch, as much of it as sizes tell when there is no memory yet.
struct Path {
    Facts on;
    int64_t rows, in, out, rank;
    LoraAttr attr;
    Values top, x, a, b;                               // top: base, or dy
    bool backward;
    DType type = DType::f32;                           // of what is kept for the products
    int64_t chunk = 0;                                 // rows of drop(x), 0: x itself is read
    Places u{}, dropped{}, packed{};                   // packed: dy, for both of its products
    void* rest = nullptr;                              // scratch of a product

    Path(const Facts& f, const GraphImpl& g, const Node& node, bool is_back)
        : on(f), rows(g.source(node, 1).shape[0]), in(g.source(node, 1).shape[1]),
          out(g.source(node, 0).shape[1]), rank(g.source(node, 2).shape[0]), attr(node.attr.get<LoraAttr>()),
          backward(is_back) {
        Values* const to[] = {&top, &x, &a, &b};
        for (int i = 0; i < 4; ++i) to[i]->type = g.source(node, i).storage;
        if (!on.exact) type = DType::bf16;
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
    Product v_of(const Values& dy, int64_t ld, const Places& v) const {        // v = s dy B
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
    Values dy() const { return packs() ? Values{packed.data, type} : top; }
    int64_t dy_ld() const { return packs() ? gemm_room::ceil_div(out, 8) * 8 : out; }

    // Of any of its products. Chunks are of two sizes.
    int64_t scratch() {
        int64_t most = 0;
        const auto want = [&](const Product& p) { most = std::max(most, product_scratch(on, p)); };
        const int64_t own = place(nullptr), step = chunk ? chunk : rows, last = rows % std::max<int64_t>(step, 1);
        const Values from = chunk ? read(dropped) : x;
        for (const int64_t count : {step, last ? last : step}) {
            want(down(from, u, count));
            if (backward) want(da_of(from, {}, {}, count));
        }
        if (!backward) want(up({nullptr, type}));
        if (backward) want(v_of(dy(), dy_ld(), {})), want(db_of(dy(), dy_ld(), {}));
        return own + most;
    }
};

// dx = v A, or added to what was there.
inline Product dx_of(const GraphImpl& g, const Node& dx) {
    const Node &v = g.source(dx, 0), &a = g.source(dx, 1);
    Product p;
    p.m = v.shape[0], p.n = a.shape[1], p.k = a.shape[0];
    p.a.type = v.storage, p.lda = p.k;
    p.b.type = a.storage, p.ldb = p.n, p.b_across = true;
    p.c.type = dx.storage, p.ldc = p.n;
    if (dx.src[2] >= 0) p.beta = 1, p.d.type = g.source(dx, 2).storage, p.ldd = p.n;
    return p;
}
inline int64_t dx_scratch(const GraphImpl& g, const Node& node) { return product_scratch(facts_of(g), dx_of(g, node)); }

template <bool backward> int64_t scratch(const GraphImpl& g, const Node& node) {
    return Path(facts_of(g), g, node, backward).scratch();
}

}  // namespace lora_room
}  // namespace cuda
}}  // namespace qlora
