// attention_back.cpp - the gradients of attention.cpp's softmax(scale q k^T) v.
//
// P = exp(S - L) is recomputed tile by tile, L = log-sum-exp as the forward pass kept it; with D = dy . y (per row and
// head) and dS = P * (dy v^T - D)
//     dq = scale dS k        dk = scale dS^T q        dv = P^T dy
// in two passes, so that every result has one writer and one order of summation: over (head, query block) for dq, then
// over (kv head, key block) for dk and dv. Hence the same bytes for any number of threads. With a cap S is cap
// tanh(scale q k^T / cap), and dS gains the factor 1 - (S / cap)^2.
#include "src/ops/attention.h"

namespace qlora { inline namespace QLORA_ABI {
namespace attention_room {

int64_t backward_floats(int64_t width) { return 7 * tile_floats(width) + 2 * block_floats; }

struct Backward {                                      // what both passes read
    const Problem p;
    const float *dy, *y, *logsum;
    float* dots;                                       // D {heads, rows}: the first pass writes it, the second reads it
};

// What the cap adds, before the exponentials take the place of the scores: scores -> capped scores, dscores ->
// (dscores - dot) (1 - (S / cap)^2).
void cap_back(const Problem& p, float* scores, float* dscores, float dot, int64_t count) {
    p.vec.softcap(p.attr.cap, scores, scores, count);
    for (int64_t j = 0; j < count; ++j) dscores[j] -= dot;
    p.vec.softcap_back(p.attr.cap, scores, dscores, dscores, count);
}

// scores -> P, dscores -> dS for one tile, zero outside each row's range.
void softmax_back(const Backward& b, int64_t head, int64_t row, int64_t rows, int64_t start, int64_t count,
                  float* scores, float* dscores) {
    for (int64_t i = 0; i < rows; ++i) {
        float *s = scores + i * key_block, *d = dscores + i * key_block;
        const Range r = within(b.p, row + i, start, count);
        float dot = b.dots[head * b.p.rows + row + i];
        if (b.p.attr.cap > 0 && !r.empty()) {
            cap_back(b.p, s + r.first, d + r.first, dot, r.last - r.first);
            dot = 0;                                   // taken off already
        }
        if (!r.empty())
            b.p.vec.exp_sum(s + r.first, b.logsum[(row + i) * b.p.attr.heads + head], s + r.first, r.last - r.first);
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
    for (int64_t i = 0; i < rows; ++i)
        b.dots[head * p.rows + row + i] = p.vec.dot(b.dy + at + i * p.ldq, b.y + at + i * p.ldq, n);
    const Range keys = p.range_of(row, row + rows);
    for (int64_t start = keys.first; start < keys.last; start += key_block) {
        const int64_t count = std::min(key_block, keys.last - start), columns = tile_up(count, tile_cols);
        const FloatRows keys_here = part(p, p.k, start, count, kv, nullptr),
                        values = part(p, p.v, start, count, kv, nullptr);
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
    const int64_t n = p.attr.head_dim, count = std::min(key_block, p.keys - start), columns = tile_up(count, tile_cols),
                  at = start * p.ldk + kv_head * n;
    const int64_t key_rows = tile_up(count, tile_rows);
    float* q = scratch;                                // {query_block, width}, scaled
    float* dy = q + tile_floats(p.width);              // {query_block, width}
    float* kt = dy + tile_floats(p.width);             // {head_dim, key_block}
    float* vt = kt + tile_floats(p.width);             // {head_dim, key_block}
    float* dk = vt + tile_floats(p.width);             // {key_block, width}
    float* dv = dk + tile_floats(p.width);             // {key_block, width}
    float* scores = dv + tile_floats(p.width);         // {query_block, key_block}
    float* dscores = scores + block_floats;
    const FloatRows keys_here = part(p, p.k, start, count, kv_head, nullptr),
                    values = part(p, p.v, start, count, kv_head, nullptr);
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
            // q carries the scale
            p.tile.product(key_rows, p.width, rows, dscores, 1, key_block, q, p.width, dk, p.width, true);
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
    float* dots = static_cast<float*>(call.scratch);
    float* scratch = dots + p.attr.heads * p.rows;
    const Backward b{p, call.in(0), call.in(6), call.saved_of(6), dots};
    float *dq = call.result(), *dk = dq + p.rows * p.ldq, *dv = dk + p.keys * p.ldk;
    const int64_t query_blocks = (p.rows + query_block - 1) / query_block,
                  key_blocks = (p.keys + key_block - 1) / key_block;
    pool.run(query_blocks * p.attr.heads, [&](int64_t task, int thread) {
        backward_queries(b, task % p.attr.heads, (query_blocks - 1 - task / p.attr.heads) * query_block,
                         scratch + thread * backward_floats(p.width), dq);
    });
    pool.run(key_blocks * p.attr.kv_heads, [&](int64_t task, int thread) {
        backward_keys(b, task % p.attr.kv_heads, task / p.attr.kv_heads * key_block,
                      scratch + thread * backward_floats(p.width), dk, dv);
    });
}

// ---- Shape, scratch.
void back_shape(const GraphImpl& g, Node& node) {      // flat [dq | dk | dv]
    check(g, node, 1);
    if (float_source(g, node, 2).shape.size() != 2)
        fail(Errc::shape, "attention_back: k ", g.source(node, 2).shape, " by heads: a cache has no gradient");
    const Node &dy = float_source(g, node, 0), &q = g.source(node, 1);
    if (dy.shape != q.shape) fail(Errc::shape, "attention_back: dy ", dy.shape, " for q ", q.shape);
    node.shape = {q.elements() + 2 * g.source(node, 2).elements()};
}

int64_t back_scratch(const GraphImpl& g, const Node& node) {
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    const int64_t threads = g.backend->host().pool.size();
    return (a.heads * g.source(node, 1).shape[0] + threads * backward_floats(tile_up(a.head_dim, tile_cols))) * 4;
}

}  // namespace attention_room

const OpDef attention_back_def{.name = "attention_back", .shape = attention_room::back_shape};
const Kernel attention_back_cpu{attention_room::backward, attention_room::back_scratch};

}}  // namespace qlora
