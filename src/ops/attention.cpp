// attention.cpp - softmax(scale q k^T) v over a range of keys for each query row, without ever holding rows x keys numbers.
//
// Forward: blocks of query rows walk over tiles of keys with the online softmax: running maximum m and sum l, the result rescaled by
// exp(m_old - m_new) whenever the maximum grows. Kept for the backward pass, behind the result: L = m + log(l), {rows, heads}.
// Backward: P = exp(S - L) is recomputed tile by tile; with D = dy . y (per row and head) and dS = P * (dy v^T - D)
//     dq = scale dS k        dk = scale dS^T q        dv = P^T dy
// in two passes, so that every result has one writer and one order of summation: over (head, query block) for dq, then over
// (kv head, key block) for dk and dv. Hence the same bytes for any number of threads.
#include "src/cpu/kernels.h"
#include "src/cpu/tile.h"
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora::inline v0_1 {
namespace attention_room {

// 64 x 64 scores and the tiles around them take about 100 KB for a head of 64: they stay in the second-level cache.
constexpr int64_t query_block = 64, key_block = 64;
// So few query rows are not worth packing tiles for (generation has one): each row then reads the keys where they lie, once for all heads that
// share them.
constexpr int64_t few_rows = 4;
constexpr int64_t few_keys = 256;                      // keys a step of the softmax on that path
constexpr int64_t decoded_keys = 32;                   // keys that are decoded at a time: 16 KB of floats for a head of 128, half a first-level cache

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
    const WeightRef k, v;                              // {keys, kv_heads * head_dim}, or {kv_heads * keys, head_dim}: a cache, in any type
    const int32_t *first, *last;
    const Isa isa;
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

int64_t keys_of(const Node& k) { return k.shape[k.shape.size() - 2]; }

Problem problem(const Call& call, int q) {             // sources q, k, v, first, last from position q on
    const AttentionAttr attr = call.node.attr.get<AttentionAttr>();
    const Cpu& cpu = cpu_of(call);
    return {attr, call.source(q).shape[0], keys_of(call.source(q + 1)), attr.heads / attr.kv_heads, attr.heads * attr.head_dim, attr.kv_heads * attr.head_dim,
            tile_up(attr.head_dim, tile_cols), call.in(q), call.matrix(q + 1), call.matrix(q + 2),
            call.in<int32_t>(q + 3), call.in<int32_t>(q + 4), cpu.isa, vec(cpu.isa), tile(cpu.isa)};
}

// `count` keys or values of a kv head from `start` on: where they lie, or decoded into `plain`.
FloatRows part(const Problem& p, const WeightRef& of, int64_t start, int64_t count, int64_t kv_head, float* plain) {
    const int64_t n = p.attr.head_dim;
    if (of.cols == n) return float_rows(p.isa, of, n, kv_head * p.keys + start, count, 0, n, plain);
    return float_rows(p.isa, of, p.ldk, start, count, kv_head * n, n, plain);
}
bool decodes(const Node& keys) { return keys.dtype != DType::f32; }

// Copies rows {rows, n} into a tile {padded rows, ldto}, times factor; what is added around them is zero.
void pack(const float* from, int64_t ld, int64_t rows, int64_t n, float factor, float* to, int64_t ldto) {
    const int64_t padded = tile_up(rows, tile_rows);
    for (int64_t i = 0; i < padded; ++i) {
        float* row = to + i * ldto;
        const int64_t filled = i < rows ? n : 0;
        for (int64_t j = 0; j < filled; ++j) row[j] = from[i * ld + j] * factor;
        std::fill(row + filled, row + ldto, 0.0f);
    }
}

// The transpose of up to key_block rows as a tile {n, key_block}; columns past the last key are zero.
void pack_transposed(const float* from, int64_t ld, int64_t rows, int64_t n, float* to) {
    transpose(from, ld, rows, n, to, key_block);
    for (int64_t j = 0; rows < key_block && j < n; ++j) std::fill(to + j * key_block + rows, to + (j + 1) * key_block, 0.0f);
}

void unpack(const float* from, int64_t ldfrom, int64_t rows, int64_t n, float factor, float* to, int64_t ld) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < n; ++j) to[i * ld + j] = from[i * ldfrom + j] * factor;
}

// The keys of row t within the tile [start, start + count), counted from start.
Range within(const Problem& p, int64_t t, int64_t start, int64_t count) {
    const Range r = p.range(t);
    return {std::clamp<int64_t>(r.first - start, 0, count), std::clamp<int64_t>(r.last - start, 0, count)};
}

// What `products` products of head_dim numbers for every query head, row and key of its range amount to, over keys and values read once.
void count_work(Cpu& cpu, const Problem& p, int64_t products) {
    int64_t pairs = 0;
    for (int64_t t = 0; t < p.rows; ++t) pairs += std::max<int64_t>(p.range(t).last - p.range(t).first, 0);
    const Range seen = p.range_of(0, p.rows);
    const int64_t keys = seen.empty() ? 0 : seen.last - seen.first;
    cpu.work.add(2 * products * pairs * p.attr.head_dim * p.attr.heads, 2 * bytes_of(p.k.dtype, keys * p.ldk));
}

// ---- Forward, tiled.
constexpr int64_t block_floats = query_block * key_block;
int64_t tile_floats(int64_t width) { return 64 * width; }   // a block of rows, or a transposed tile of keys: both blocks are 64
static_assert(query_block == 64 && key_block == 64);
int64_t forward_floats(int64_t width, bool decode) { return (decode ? 5 : 4) * tile_floats(width) + block_floats + 2 * query_block; }

// Turns scores {query_block, key_block} into exp(score - running maximum), zero outside each row's range, and rescales what was summed so far.
void online_softmax(const Problem& p, int64_t row, int64_t rows, int64_t start, int64_t count, float* scores, float* y, float* maximum, float* sum) {
    for (int64_t i = 0; i < rows; ++i) {
        float* s = scores + i * key_block;
        const Range r = within(p, row + i, start, count);
        if (r.empty()) { std::fill(s, s + count, 0.0f); continue; }
        const float m = std::max(maximum[i], p.vec.max(s + r.first, r.last - r.first));
        if (m > maximum[i]) {
            const float shrink = std::exp(maximum[i] - m);                 // 0 at the first tile, where the maximum was -inf
            p.vec.scale(shrink, y + i * p.width, y + i * p.width, p.width);
            sum[i] *= shrink;
            maximum[i] = m;
        }
        sum[i] += p.vec.exp_sum(s + r.first, m, s + r.first, r.last - r.first);
        std::fill(s, s + r.first, 0.0f);
        std::fill(s + r.last, s + count, 0.0f);
    }
}

void forward_block(const Problem& p, int64_t head, int64_t row, float* scratch, float* out, float* logsum) {
    const int64_t n = p.attr.head_dim, rows = std::min(query_block, p.rows - row), padded = tile_up(rows, tile_rows), kv = head / p.group;
    float* q = scratch;                                // {query_block, width}, scaled
    float* kt = q + tile_floats(p.width);              // {head_dim, key_block}
    float* v = kt + tile_floats(p.width);              // {key_block, width}
    float* y = v + tile_floats(p.width);               // {query_block, width}
    float* scores = y + tile_floats(p.width);          // {query_block, key_block}
    float* maximum = scores + block_floats;
    float* sum = maximum + query_block;
    float* plain = sum + query_block;                  // {key_block, head_dim}, if keys and values are decoded
    pack(p.q + row * p.ldq + head * n, p.ldq, rows, n, p.attr.scale, q, p.width);
    std::fill(y, y + padded * p.width, 0.0f);
    std::fill(maximum, maximum + rows, -INFINITY);
    std::fill(sum, sum + rows, 0.0f);
    const Range keys = p.range_of(row, row + rows);
    for (int64_t start = keys.first; start < keys.last; start += key_block) {
        const int64_t count = std::min(key_block, keys.last - start);
        const FloatRows keys_here = part(p, p.k, start, count, kv, plain);
        pack_transposed(keys_here.data, keys_here.ld, count, n, kt);
        const FloatRows values = part(p, p.v, start, count, kv, plain);
        pack(values.data, values.ld, count, n, 1, v, p.width);
        p.tile.product(padded, tile_up(count, tile_cols), n, q, p.width, 1, kt, key_block, scores, key_block, false);
        online_softmax(p, row, rows, start, count, scores, y, maximum, sum);
        p.tile.product(padded, p.width, count, scores, key_block, 1, v, p.width, y, p.width, true);
    }
    for (int64_t i = 0; i < rows; ++i) {
        const bool empty = sum[i] == 0;                // saw nothing: zeros
        unpack(y + i * p.width, p.width, 1, n, empty ? 0 : 1 / sum[i], out + (row + i) * p.ldq + head * n, p.ldq);
        logsum[(row + i) * p.attr.heads + head] = empty ? 0 : maximum[i] + std::log(sum[i]);
    }
}

// ---- Forward of a few rows: no tiles, and a task is some neighbouring heads of a row.
int64_t row_floats(int64_t group, int64_t head_dim, bool decode) { return group * (few_keys + 2) + (decode ? decoded_keys * head_dim : 0); }

// f(rows, first key, count) for pieces of [start, start + count) as floats.
template <class F>
void in_pieces(const Problem& p, const WeightRef& of, int64_t start, int64_t count, int64_t kv_head, float* plain, const F& f) {
    const int64_t piece = of.dtype == DType::f32 ? count : decoded_keys;
    for (int64_t j = 0; j < count; j += piece) {
        const int64_t some = std::min(piece, count - j);
        f(part(p, of, start + j, some, kv_head, plain), j, some);
    }
}

// Heads [first, last) of a row, which share the keys and values of one kv head. Each is computed as if it were alone.
void forward_group(const Problem& p, int64_t row, int64_t first, int64_t last, float* scratch, float* out, float* logsum) {
    const int64_t n = p.attr.head_dim, kv = first / p.group, heads = last - first;
    const float* q = p.q + row * p.ldq + first * n;
    float* y = out + row * p.ldq + first * n;          // {heads, head_dim}
    float* maximum = scratch;                          // {heads}
    float* sum = maximum + heads;                      // {heads}
    float* scores = sum + heads;                       // {heads, few_keys}
    float* plain = scores + heads * few_keys;          // {decoded_keys, head_dim}
    std::fill(y, y + heads * n, 0.0f);
    std::fill(maximum, maximum + heads, -INFINITY);
    std::fill(sum, sum + heads, 0.0f);
    const Range keys = p.range(row);
    for (int64_t start = keys.first; start < keys.last; start += few_keys) {
        const int64_t count = std::min(few_keys, keys.last - start);
        in_pieces(p, p.k, start, count, kv, plain, [&](const FloatRows& k, int64_t j, int64_t some) {
            for (int64_t h = 0; h < heads; ++h) p.tile.dots(q + h * n, k.data, k.ld, some, n, scores + h * few_keys + j);
        });
        for (int64_t h = 0; h < heads; ++h) {
            float* s = scores + h * few_keys;
            p.vec.scale(p.attr.scale, s, s, count);
            const float m = std::max(maximum[h], p.vec.max(s, count)), shrink = std::exp(maximum[h] - m);
            p.vec.scale(shrink, y + h * n, y + h * n, n);
            sum[h] = sum[h] * shrink + p.vec.exp_sum(s, m, s, count);
            maximum[h] = m;
        }
        in_pieces(p, p.v, start, count, kv, plain, [&](const FloatRows& v, int64_t j, int64_t some) {
            for (int64_t h = 0; h < heads; ++h) p.tile.mix(scores + h * few_keys + j, v.data, v.ld, some, n, y + h * n);
        });
    }
    for (int64_t h = 0; h < heads; ++h) {
        if (sum[h] > 0) p.vec.scale(1 / sum[h], y + h * n, y + h * n, n);
        logsum[row * p.attr.heads + first + h] = sum[h] > 0 ? maximum[h] + std::log(sum[h]) : 0;
    }
}

// All heads of a few rows, in as many parts as there are threads: each part reads all keys of its heads, and results do not depend on where the
// cuts are.
void forward_few(const Problem& p, ThreadPool& pool, float* scratch, int64_t scratch_floats, float* out, float* logsum) {
    const int64_t heads = p.attr.heads, threads = pool.size(), parts = std::min(heads, (threads + p.rows - 1) / p.rows);
    pool.run(p.rows * parts, [&](int64_t task, int thread) {
        const int64_t number = task % parts, end = (number + 1) * heads / parts;
        for (int64_t head = number * heads / parts; head < end;) {
            const int64_t last = std::min(end, (head / p.group + 1) * p.group);
            forward_group(p, task / parts, head, last, scratch + thread * scratch_floats, out, logsum);
            head = last;
        }
    });
}

void forward(const Call& call) {
    const Problem p = problem(call, 0);
    ThreadPool& pool = cpu_of(call).pool;
    count_work(cpu_of(call), p, 2);                    // q k^T, P v
    float* out = call.result();
    float* logsum = out + p.rows * p.ldq;
    float* scratch = static_cast<float*>(call.scratch);
    const int64_t heads = p.attr.heads;
    const bool decode = decodes(call.source(1));
    if (p.rows <= few_rows) return forward_few(p, pool, scratch, row_floats(p.group, p.attr.head_dim, decode), out, logsum);
    const int64_t blocks = (p.rows + query_block - 1) / query_block, floats = forward_floats(p.width, decode);
    pool.run(blocks * heads, [&](int64_t task, int thread) {               // last rows first: under a causal mask they are the longest
        forward_block(p, task % heads, (blocks - 1 - task / heads) * query_block, scratch + thread * floats, out, logsum);
    });
}

// ---- Backward.
int64_t backward_floats(int64_t width) { return 7 * tile_floats(width) + 2 * block_floats; }

struct Backward {                                      // what both passes read
    const Problem p;
    const float *dy, *y, *logsum;
    float* dots;                                       // D {heads, rows}: the first pass writes it, the second reads it
};

// scores -> P, dscores -> dS for one tile, zero outside each row's range.
void softmax_back(const Backward& b, int64_t head, int64_t row, int64_t rows, int64_t start, int64_t count, float* scores, float* dscores) {
    for (int64_t i = 0; i < rows; ++i) {
        float *s = scores + i * key_block, *d = dscores + i * key_block;
        const Range r = within(b.p, row + i, start, count);
        const float dot = b.dots[head * b.p.rows + row + i];
        if (!r.empty()) b.p.vec.exp_sum(s + r.first, b.logsum[(row + i) * b.p.attr.heads + head], s + r.first, r.last - r.first);
        const int64_t from = r.empty() ? count : r.first, to = r.empty() ? count : r.last;
        std::fill(s, s + from, 0.0f);
        std::fill(d, d + from, 0.0f);
        for (int64_t j = from; j < to; ++j) d[j] = s[j] * (d[j] - dot);
        std::fill(s + to, s + count, 0.0f);
        std::fill(d + to, d + count, 0.0f);
    }
}

void backward_queries(const Backward& b, int64_t head, int64_t row, float* scratch, float* dq_out) {
    const Problem& p = b.p;
    const int64_t n = p.attr.head_dim, rows = std::min(query_block, p.rows - row), padded = tile_up(rows, tile_rows);
    const int64_t kv = head / p.group, at = row * p.ldq + head * n;
    float* q = scratch;                                // {query_block, width}, scaled
    float* dy = q + tile_floats(p.width);              // {query_block, width}
    float* dq = dy + tile_floats(p.width);             // {query_block, width}
    float* kt = dq + tile_floats(p.width);             // {head_dim, key_block}
    float* vt = kt + tile_floats(p.width);             // {head_dim, key_block}
    float* k = vt + tile_floats(p.width);              // {key_block, width}
    float* scores = k + tile_floats(p.width);          // {query_block, key_block}
    float* dscores = scores + block_floats;
    pack(p.q + at, p.ldq, rows, n, p.attr.scale, q, p.width);
    pack(b.dy + at, p.ldq, rows, n, 1, dy, p.width);
    std::fill(dq, dq + padded * p.width, 0.0f);
    for (int64_t i = 0; i < rows; ++i) b.dots[head * p.rows + row + i] = p.vec.dot(b.dy + at + i * p.ldq, b.y + at + i * p.ldq, n);
    const Range keys = p.range_of(row, row + rows);
    for (int64_t start = keys.first; start < keys.last; start += key_block) {
        const int64_t count = std::min(key_block, keys.last - start), columns = tile_up(count, tile_cols);
        const FloatRows keys_here = part(p, p.k, start, count, kv, nullptr), values = part(p, p.v, start, count, kv, nullptr);
        pack_transposed(keys_here.data, keys_here.ld, count, n, kt);
        pack_transposed(values.data, values.ld, count, n, vt);
        pack(keys_here.data, keys_here.ld, count, n, 1, k, p.width);
        p.tile.product(padded, columns, n, q, p.width, 1, kt, key_block, scores, key_block, false);
        p.tile.product(padded, columns, n, dy, p.width, 1, vt, key_block, dscores, key_block, false);
        softmax_back(b, head, row, rows, start, count, scores, dscores);
        p.tile.product(padded, p.width, count, dscores, key_block, 1, k, p.width, dq, p.width, true);
    }
    unpack(dq, p.width, rows, n, p.attr.scale, dq_out + at, p.ldq);
}

void backward_keys(const Backward& b, int64_t kv_head, int64_t start, float* scratch, float* dk_out, float* dv_out) {
    const Problem& p = b.p;
    const int64_t n = p.attr.head_dim, count = std::min(key_block, p.keys - start), columns = tile_up(count, tile_cols), at = start * p.ldk + kv_head * n;
    const int64_t key_rows = tile_up(count, tile_rows);
    float* q = scratch;                                // {query_block, width}, scaled
    float* dy = q + tile_floats(p.width);              // {query_block, width}
    float* kt = dy + tile_floats(p.width);             // {head_dim, key_block}
    float* vt = kt + tile_floats(p.width);             // {head_dim, key_block}
    float* dk = vt + tile_floats(p.width);             // {key_block, width}
    float* dv = dk + tile_floats(p.width);             // {key_block, width}
    float* scores = dv + tile_floats(p.width);         // {query_block, key_block}
    float* dscores = scores + block_floats;
    const FloatRows keys_here = part(p, p.k, start, count, kv_head, nullptr), values = part(p, p.v, start, count, kv_head, nullptr);
    pack_transposed(keys_here.data, keys_here.ld, count, n, kt);
    pack_transposed(values.data, values.ld, count, n, vt);
    std::fill(dk, dk + key_rows * p.width, 0.0f);
    std::fill(dv, dv + key_rows * p.width, 0.0f);
    for (int64_t row = 0; row < p.rows; row += query_block) {
        const int64_t rows = std::min(query_block, p.rows - row), padded = tile_up(rows, tile_rows);
        const Range seen = p.range_of(row, row + rows);
        if (seen.empty() || seen.last <= start || seen.first >= start + count) continue;
        for (int64_t head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
            pack(p.q + row * p.ldq + head * n, p.ldq, rows, n, p.attr.scale, q, p.width);
            pack(b.dy + row * p.ldq + head * n, p.ldq, rows, n, 1, dy, p.width);
            p.tile.product(padded, columns, n, q, p.width, 1, kt, key_block, scores, key_block, false);
            p.tile.product(padded, columns, n, dy, p.width, 1, vt, key_block, dscores, key_block, false);
            softmax_back(b, head, row, rows, start, count, scores, dscores);
            p.tile.product(key_rows, p.width, rows, dscores, 1, key_block, q, p.width, dk, p.width, true);    // q carries the scale
            p.tile.product(key_rows, p.width, rows, scores, 1, key_block, dy, p.width, dv, p.width, true);
        }
    }
    unpack(dk, p.width, count, n, 1, dk_out + at, p.ldk);
    unpack(dv, p.width, count, n, 1, dv_out + at, p.ldk);
}

void backward(const Call& call) {                      // sources dy, q, k, v, first, last, y with its L behind it
    const Problem p = problem(call, 1);
    ThreadPool& pool = cpu_of(call).pool;
    count_work(cpu_of(call), p, 7);                    // q k^T and dy v^T in both passes, dq; dk, dv
    const float* y = call.in(6);
    float* dots = static_cast<float*>(call.scratch);
    float* scratch = dots + p.attr.heads * p.rows;
    const Backward b{p, call.in(0), y, y + p.rows * p.ldq, dots};
    float *dq = call.result(), *dk = dq + p.rows * p.ldq, *dv = dk + p.keys * p.ldk;
    const int64_t query_blocks = (p.rows + query_block - 1) / query_block, key_blocks = (p.keys + key_block - 1) / key_block;
    pool.run(query_blocks * p.attr.heads, [&](int64_t task, int thread) {
        backward_queries(b, task % p.attr.heads, (query_blocks - 1 - task / p.attr.heads) * query_block, scratch + thread * backward_floats(p.width), dq);
    });
    pool.run(key_blocks * p.attr.kv_heads, [&](int64_t task, int thread) {
        backward_keys(b, task % p.attr.kv_heads, task / p.attr.kv_heads * key_block, scratch + thread * backward_floats(p.width), dk, dv);
    });
}

// ---- Shapes, scratch, gradient.
void check(const GraphImpl& g, const Node& node, int at) {   // sources q, k, v, first, last from position `at` on
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    const Node &q = float_source(g, node, at), &k = rows_source(g, node, at + 1), &v = rows_source(g, node, at + 2);
    const Node &first = g.source(node, at + 3), &last = g.source(node, at + 4);
    if (a.kv_heads < 1 || a.head_dim < 1 || a.heads < 1 || a.heads % a.kv_heads) {
        fail(Errc::shape, "attention: ", a.heads, " heads of ", a.head_dim, " cannot share ", a.kv_heads, " kv heads: q ", q.shape, ", k ", k.shape);
    }
    const bool rows = k.shape.size() == 2 && k.shape[1] == a.kv_heads * a.head_dim;
    const bool by_head = k.shape.size() == 3 && k.shape[0] == a.kv_heads && k.shape[2] == a.head_dim;
    if (q.shape.size() != 2 || q.shape[1] != a.heads * a.head_dim || !(rows || by_head) || v.shape != k.shape || v.dtype != k.dtype) {
        fail(Errc::shape, "attention: q ", q.shape, ", k ", name_of(k.dtype), ' ', k.shape, ", v ", name_of(v.dtype), ' ', v.shape,
             ", expected {rows, ", a.heads * a.head_dim, "} and twice {keys, ", a.kv_heads * a.head_dim, "} or {", a.kv_heads, ", keys, ", a.head_dim, '}');
    }
    if (first.shape != Shape{q.shape[0]} || last.shape != Shape{q.shape[0]}) {
        fail(Errc::shape, "attention: first ", first.shape, ", last ", last.shape, " for q ", q.shape, ": one key range for each row is needed");
    }
    if (first.dtype != DType::i32 || last.dtype != DType::i32) {
        fail(Errc::argument, "attention: first and last must be i32, got ", name_of(first.dtype), " and ", name_of(last.dtype));
    }
}

void shape(const GraphImpl& g, Node& node) {
    check(g, node, 0);
    node.shape = g.source(node, 0).shape;
    node.saved = node.shape[0] * node.attr.get<AttentionAttr>().heads;
}

void back_shape(const GraphImpl& g, Node& node) {      // flat [dq | dk | dv]
    check(g, node, 1);
    if (float_source(g, node, 2).shape.size() != 2) fail(Errc::shape, "attention_back: k ", g.source(node, 2).shape, " by heads: a cache has no gradient");
    const Node &dy = float_source(g, node, 0), &q = g.source(node, 1);
    if (dy.shape != q.shape) fail(Errc::shape, "attention_back: dy ", dy.shape, " for q ", q.shape);
    node.shape = {q.elements() + 2 * g.source(node, 2).elements()};
}

int64_t scratch(const GraphImpl& g, const Node& node) {
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    const int64_t threads = g.backend->cpu() ? g.backend->cpu()->pool.size() : 0;
    const bool decode = decodes(g.source(node, 1));
    return threads * (node.shape[0] <= few_rows ? row_floats(a.heads / a.kv_heads, a.head_dim, decode) : forward_floats(tile_up(a.head_dim, tile_cols), decode)) * 4;
}

int64_t back_scratch(const GraphImpl& g, const Node& node) {
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    const int64_t threads = g.backend->cpu() ? g.backend->cpu()->pool.size() : 0;
    return (a.heads * g.source(node, 1).shape[0] + threads * backward_floats(tile_up(a.head_dim, tile_cols))) * 4;
}

void grad(GraphImpl& g, const Node& forward, int32_t self, int32_t dy) {
    const auto& src = forward.src;
    const Shape q = g.node(src[0]).shape, k = g.node(src[1]).shape;
    const auto source = [&](size_t i) { return g.handle(src[i]); };
    const Tensor back = g.add(Op::attention_back, {g.handle(dy), source(0), source(1), source(2), source(3), source(4), g.handle(self)}, forward.attr);
    g.accumulate(src[0], view(back, 0, q));
    g.accumulate(src[1], view(back, elements_of(q), k));
    g.accumulate(src[2], view(back, elements_of(q) + elements_of(k), k));
}

}  // namespace attention_room

const OpDef attention_def{.name = "attention", .shape = attention_room::shape, .cpu = attention_room::forward, .grad = attention_room::grad,
                          .scratch = attention_room::scratch};
const OpDef attention_back_def{.name = "attention_back", .shape = attention_room::back_shape, .cpu = attention_room::backward, .grad = nullptr,
                               .scratch = attention_room::back_scratch};

Tensor attention(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, const AttentionAttr& attr) {
    return graph_of({q, k, v, first, last}, "attention").add(Op::attention, {q, k, v, first, last}, attr_of(attr));
}

Tensor attention(Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, Tensor first_key) {
    GraphImpl& g = graph_of({q, k, v}, "attention");
    const Shape shape = q.shape();
    if (heads < 1 || shape.size() != 2 || shape[1] % heads || k.shape().size() != 2) {
        fail(Errc::shape, "attention: q ", shape, ", k ", k.shape(), " with ", heads, " heads");
    }
    // Causal, with the last query row at the last key: with more keys than rows the first of them are a past that every row sees.
    const int64_t rows = shape[0], past = k.shape()[0] - rows;
    std::vector<int32_t> ends(size_t(rows), 0), starts(size_t(rows), 0);
    for (int64_t t = 0; t < rows; ++t) ends[size_t(t)] = int32_t(past + t + 1);
    const Tensor last = g.input({rows}, DType::i32);
    g.write(last, ends.data(), rows * 4);
    if (!first_key.graph()) {
        first_key = g.input({rows}, DType::i32);
        g.write(first_key, starts.data(), rows * 4);
    }
    AttentionAttr attr;
    attr.heads = heads;
    attr.kv_heads = kv_heads;
    attr.head_dim = shape[1] / heads;
    attr.scale = 1 / std::sqrt(float(attr.head_dim));
    return attention(q, k, v, first_key, last, attr);
}

}  // namespace qlora
