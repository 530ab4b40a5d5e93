// attention.h - what both directions of attention share: the problem as its kernels see it, and the tiles they work in.
#pragma once
#include "src/cpu/kernels.h"
#include "src/cpu/tile.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace attention_room {

// 64 x 64 scores and the tiles around them take about 100 KB for a head of 64: they stay in the second-level cache.
constexpr int64_t query_block = 64, key_block = 64;
constexpr int64_t block_floats = query_block * key_block;
// a block of rows, or a transposed tile of keys: both blocks are 64
inline int64_t tile_floats(int64_t width) { return 64 * width; }
static_assert(query_block == 64 && key_block == 64);

struct Range {
    int64_t first = 0, last = 0;
    bool empty() const { return first >= last; }
};

struct Problem {
    const AttentionAttr attr;
    int64_t rows, keys, group;                         // group: query heads that share one kv head
    int64_t ldq, ldk;                                  // row lengths of q (also y, dy, dq) and of k and v (also dk, dv)
    int64_t width;                                     // head_dim rounded up to whole tiles
    const float* q;
    const WeightRef k, v;    // {keys, kv_heads * head_dim}, or {kv_heads * keys, head_dim}: a cache, in any type
    const int32_t *first, *last;
    const Kernels& kernels;
    const Vec& vec;
    const Tile& tile;

    // Clamped, so that a wrong range can give wrong numbers but never read outside of k and v.
    Range range(int64_t row) const { return {std::max<int64_t>(first[row], 0), std::min<int64_t>(last[row], keys)}; }
    Range range_of(int64_t from, int64_t to) const {   // every key that one of these rows sees
        Range all{keys, 0};
        for (int64_t t = from; t < to; ++t)
            if (const Range r = range(t); !r.empty()) all = {std::min(all.first, r.first), std::max(all.last, r.last)};
        return all;
    }
};

inline int64_t keys_of(const Node& k) { return k.shape[k.shape.size() - 2]; }

inline Problem problem(const Call& call, int q) {             // sources q, k, v, first, last from position q on
    const AttentionAttr attr = call.node.attr.get<AttentionAttr>();
    const Cpu& cpu = cpu_of(call);
    return {attr,
            call.source(q).shape[0],
            keys_of(call.source(q + 1)),
            attr.heads / attr.kv_heads,
            attr.heads * attr.head_dim,
            attr.kv_heads * attr.head_dim,
            tile_up(attr.head_dim, tile_cols),
            call.in(q),
            call.matrix(q + 1),
            call.matrix(q + 2),
            call.in<int32_t>(q + 3),
            call.in<int32_t>(q + 4),
            *cpu.kernels,
            cpu.kernels->vec,
            cpu.kernels->tile};
}

// `count` keys or values of a kv head from `start` on: where they lie, or decoded into `plain`.
inline FloatRows part(const Problem& p, const WeightRef& of, int64_t start, int64_t count, int64_t kv_head,
                      float* plain) {
    const int64_t n = p.attr.head_dim;
    if (of.cols == n) return float_rows(p.kernels, of, n, kv_head * p.keys + start, count, 0, n, plain);
    return float_rows(p.kernels, of, p.ldk, start, count, kv_head * n, n, plain);
}
inline bool decodes(const Node& keys) { return keys.dtype != DType::f32; }

// Copies rows {rows, n} into a tile {padded rows, ldto}, times factor; what is added around them is zero.
inline void pack(const float* from, int64_t ld, int64_t rows, int64_t n, float factor, float* to, int64_t ldto) {
    const int64_t padded = tile_up(rows, tile_rows);
    for (int64_t i = 0; i < padded; ++i) {
        float* row = to + i * ldto;
        const int64_t filled = i < rows ? n : 0;
        for (int64_t j = 0; j < filled; ++j) row[j] = from[i * ld + j] * factor;
        std::fill(row + filled, row + ldto, 0.0f);
    }
}

// The transpose of up to key_block rows as a tile {n, key_block}; columns past the last key are zero.
inline void pack_transposed(const float* from, int64_t ld, int64_t rows, int64_t n, float* to) {
    transpose(from, ld, rows, n, to, key_block);
    for (int64_t j = 0; rows < key_block && j < n; ++j)
        std::fill(to + j * key_block + rows, to + (j + 1) * key_block, 0.0f);
}

inline void unpack(const float* from, int64_t ldfrom, int64_t rows, int64_t n, float factor, float* to, int64_t ld) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < n; ++j) to[i * ld + j] = from[i * ldfrom + j] * factor;
}

// The keys of row t within the tile [start, start + count), counted from start.
inline Range within(const Problem& p, int64_t t, int64_t start, int64_t count) {
    const Range r = p.range(t);
    return {std::clamp<int64_t>(r.first - start, 0, count), std::clamp<int64_t>(r.last - start, 0, count)};
}

// What `products` products of head_dim numbers for every query head, row and key of its range amount to, over keys and
// values read once.
inline void count_work(Cpu& cpu, const Problem& p, int64_t products) {
    int64_t pairs = 0;
    for (int64_t t = 0; t < p.rows; ++t) pairs += std::max<int64_t>(p.range(t).last - p.range(t).first, 0);
    const Range seen = p.range_of(0, p.rows);
    const int64_t keys = std::min(pairs, seen.empty() ? 0 : seen.last - seen.first);
    cpu.work.add(2 * products * pairs * p.attr.head_dim * p.attr.heads, 2 * bytes_of(p.k.dtype, keys * p.ldk));
}

// sources q, k, v, first, last from position `at` on
inline void check(const GraphImpl& g, const Node& node, int at) {
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    check_cap(node, a.cap, true);
    const Node &q = float_source(g, node, at), &k = rows_source(g, node, at + 1), &v = rows_source(g, node, at + 2);
    const Node &first = g.source(node, at + 3), &last = g.source(node, at + 4);
    if (a.kv_heads < 1 || a.head_dim < 1 || a.heads < 1 || a.heads % a.kv_heads) {
        fail(Errc::shape, "attention: ", a.heads, " heads of ", a.head_dim, " cannot share ", a.kv_heads,
             " kv heads: q ", q.shape, ", k ", k.shape);
    }
    const bool rows = k.shape.size() == 2 && k.shape[1] == a.kv_heads * a.head_dim;
    const bool by_head = k.shape.size() == 3 && k.shape[0] == a.kv_heads && k.shape[2] == a.head_dim;
    if (q.shape.size() != 2 || q.shape[1] != a.heads * a.head_dim || !(rows || by_head) || v.shape != k.shape ||
        v.dtype != k.dtype) {
        fail(Errc::shape, "attention: q ", q.shape, ", k ", name_of(k.dtype), ' ', k.shape, ", v ", name_of(v.dtype),
             ' ', v.shape, ", expected {rows, ", a.heads * a.head_dim, "} and twice {keys, ", a.kv_heads * a.head_dim,
             "} or {", a.kv_heads, ", keys, ", a.head_dim, '}');
    }
    if (first.shape != Shape{q.shape[0]} || last.shape != Shape{q.shape[0]}) {
        fail(Errc::shape, "attention: first ", first.shape, ", last ", last.shape, " for q ", q.shape,
             ": one key range for each row is needed");
    }
    if (first.dtype != DType::i32 || last.dtype != DType::i32) {
        fail(Errc::argument, "attention: first and last must be i32, got ", name_of(first.dtype), " and ",
             name_of(last.dtype));
    }
}

}  // namespace attention_room
}}  // namespace qlora
