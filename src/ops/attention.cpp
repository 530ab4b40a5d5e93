// attention.cpp - softmax(scale q k^T) v over a range of keys for each query row, without ever holding rows x keys
// numbers. With a cap the scores S = scale q k^T become cap tanh(S / cap) before the softmax.
//
// Forward: blocks of query rows walk over tiles of keys with the online softmax: running maximum m and sum l, the
// result rescaled by exp(m_old - m_new) whenever the maximum grows. Kept for the backward pass, behind the result: L =
// m + log(l), {rows, heads}. attention_back.cpp has the gradients.
#include "src/ops/attention.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace attention_room {

// So few query rows are not worth packing tiles for (generation has one): each row then reads the keys where they lie,
// once for all heads that share them.
constexpr int64_t few_rows = 4;
constexpr int64_t most_apart = most_gemv_rows;         // and so many that share no key: sequences of a batch
constexpr int64_t few_keys = 256;                      // keys a step of the softmax on that path
// keys that are decoded at a time: 16 KB of floats for a head of 128, half a first-level cache
constexpr int64_t decoded_keys = 32;

// ---- Tiles.
int64_t forward_floats(int64_t width, bool decode) {
    return (decode ? 5 : 4) * tile_floats(width) + block_floats + 2 * query_block;
}

// Turns scores {query_block, key_block} into exp(score - running maximum), zero outside each row's range, and rescales
// what was summed so far.
void online_softmax(const Problem& p, int64_t row, int64_t rows, int64_t start, int64_t count, float* scores, float* y,
                    float* maximum, float* sum) {
    for (int64_t i = 0; i < rows; ++i) {
        float* s = scores + i * key_block;
        const Range r = within(p, row + i, start, count);
        if (r.empty()) { std::fill(s, s + count, 0.0f); continue; }
        if (p.attr.cap > 0) p.vec.softcap(p.attr.cap, s + r.first, s + r.first, r.last - r.first);
        const float m = std::max(maximum[i], p.vec.max(s + r.first, r.last - r.first));
        if (m > maximum[i]) {
            const float shrink = std::exp(maximum[i] - m);    // 0 at the first tile, where the maximum was -inf
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
    const int64_t n = p.attr.head_dim, rows = std::min(query_block, p.rows - row), padded = tile_up(rows, tile_rows),
                  kv = head / p.group;
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
int64_t row_floats(int64_t group, int64_t head_dim, bool decode) {
    return group * (few_keys + 2) + (decode ? decoded_keys * head_dim : 0);
}

// f(rows, first key, count) for pieces of [start, start + count) as floats.
template <class F>
void in_pieces(const Problem& p, const WeightRef& of, int64_t start, int64_t count, int64_t kv_head, float* plain,
               const F& f) {
    const int64_t piece = of.dtype == DType::f32 ? count : decoded_keys;
    for (int64_t j = 0; j < count; j += piece) {
        const int64_t some = std::min(piece, count - j);
        f(part(p, of, start + j, some, kv_head, plain), j, some);
    }
}

// Keys or values of a kv head from `start` on, p.k.cols apart.
const uint16_t* halves_of(const Problem& p, const WeightRef& of, int64_t start, int64_t kv_head) {
    const int64_t n = p.attr.head_dim;
    const int64_t at = of.cols == n ? (kv_head * p.keys + start) * n : start * p.ldk + kv_head * n;
    return static_cast<const uint16_t*>(of.data) + at;
}

// Heads [first, last) of a row, which share the keys and values of one kv head. Each is computed as if it were alone.
void forward_group(const Problem& p, int64_t row, int64_t first, int64_t last, float* scratch, float* out,
                   float* logsum) {
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
    const bool are_halves = p.k.dtype == DType::f16 || p.k.dtype == DType::bf16;
    const HalfRows* halves = are_halves ? p.tile.halves : nullptr;
    const int64_t ld = p.k.cols;                       // n, where each head has keys of its own
    for (int64_t start = keys.first; start < keys.last; start += few_keys) {
        const int64_t count = std::min(few_keys, keys.last - start);
        if (halves) halves->dots(p.k.dtype, q, n, heads, halves_of(p, p.k, start, kv), ld, count, n, scores, few_keys);
        else in_pieces(p, p.k, start, count, kv, plain, [&](const FloatRows& k, int64_t j, int64_t some) {
            for (int64_t h = 0; h < heads; ++h)
                p.tile.dots(q + h * n, k.data, k.ld, some, n, scores + h * few_keys + j);
        });
        for (int64_t h = 0; h < heads; ++h) {
            float* s = scores + h * few_keys;
            p.vec.scale(p.attr.scale, s, s, count);
            if (p.attr.cap > 0) p.vec.softcap(p.attr.cap, s, s, count);
            const float m = std::max(maximum[h], p.vec.max(s, count)), shrink = std::exp(maximum[h] - m);
            p.vec.scale(shrink, y + h * n, y + h * n, n);
            sum[h] = sum[h] * shrink + p.vec.exp_sum(s, m, s, count);
            maximum[h] = m;
        }
        if (halves) halves->mix(p.v.dtype, scores, few_keys, heads, halves_of(p, p.v, start, kv), ld, count, n, y, n);
        else in_pieces(p, p.v, start, count, kv, plain, [&](const FloatRows& v, int64_t j, int64_t some) {
            for (int64_t h = 0; h < heads; ++h) p.tile.mix(scores + h * few_keys + j, v.data, v.ld, some, n, y + h * n);
        });
    }
    for (int64_t h = 0; h < heads; ++h) {
        if (sum[h] > 0) p.vec.scale(1 / sum[h], y + h * n, y + h * n, n);
        logsum[row * p.attr.heads + first + h] = sum[h] > 0 ? maximum[h] + std::log(sum[h]) : 0;
    }
}

// All heads of a few rows, in as many parts as there are threads: each part reads all keys of its heads, and results do
// not depend on where the cuts are.
void forward_few(const Problem& p, ThreadPool& pool, float* scratch, int64_t scratch_floats, float* out,
                 float* logsum) {
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

// Whether no two rows see the same key.
bool are_apart(const Problem& p) {
    for (int64_t a = 0; a < p.rows; ++a)
        for (int64_t b = 0; b < a; ++b) {
            const Range x = p.range(a), y = p.range(b);
            if (std::max(x.first, y.first) < std::min(x.last, y.last)) return false;
        }
    return true;
}

void forward(const Call& call) {
    const Problem p = problem(call, 0);
    ThreadPool& pool = cpu_of(call).pool;
    count_work(cpu_of(call), p, 2);                    // q k^T, P v
    float* out = call.result();
    float* logsum = call.saved();
    float* scratch = static_cast<float*>(call.scratch);
    const int64_t heads = p.attr.heads;
    const bool decode = decodes(call.source(1));
    if (p.rows <= few_rows || (p.rows <= most_apart && are_apart(p)))
        return forward_few(p, pool, scratch, row_floats(p.group, p.attr.head_dim, decode), out, logsum);
    const int64_t blocks = (p.rows + query_block - 1) / query_block, floats = forward_floats(p.width, decode);
    // last rows first: under a causal mask they are the longest
    pool.run(blocks * heads, [&](int64_t task, int thread) {
        forward_block(p, task % heads, (blocks - 1 - task / heads) * query_block, scratch + thread * floats, out,
                      logsum);
    });
}

// ---- Shape, scratch, gradient.
void shape(const GraphImpl& g, Node& node) {
    check(g, node, 0);
    node.shape = g.source(node, 0).shape;
    node.saved = node.shape[0] * node.attr.get<AttentionAttr>().heads;
}

int64_t scratch(const GraphImpl& g, const Node& node) {
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    const int64_t threads = g.backend->host().pool.size();
    const bool decode = decodes(g.source(node, 1));
    const int64_t few = row_floats(a.heads / a.kv_heads, a.head_dim, decode),
                  many = forward_floats(tile_up(a.head_dim, tile_cols), decode);
    return threads * (node.shape[0] <= few_rows ? few : std::max(few, many)) * 4;
}

void grad(GraphImpl& g, const Node& forward, int32_t self, int32_t dy) {
    const auto& src = forward.src;
    const Shape q = g.node(src[0]).shape, k = g.node(src[1]).shape;
    const auto source = [&](size_t i) { return g.handle(src[i]); };
    const Tensor back = g.add(Op::attention_back,
                              {g.handle(dy), source(0), source(1), source(2), source(3), source(4), g.handle(self)},
                              forward.attr);
    g.accumulate(src[0], view(back, 0, q));
    g.accumulate(src[1], view(back, elements_of(q), k));
    g.accumulate(src[2], view(back, elements_of(q) + elements_of(k), k));
}

}  // namespace attention_room

const OpDef attention_def{.name = "attention", .shape = attention_room::shape, .grad = attention_room::grad,
                          .results = 2};
const Kernel attention_cpu{attention_room::forward, attention_room::scratch};

Tensor attention(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, const AttentionAttr& attr) {
    return graph_of({q, k, v, first, last}, "attention").add(Op::attention, {q, k, v, first, last}, attr_of(attr));
}

Tensor attention(Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, Tensor first_key) {
    GraphImpl& g = graph_of({q, k, v}, "attention");
    const Shape shape = q.shape();
    if (heads < 1 || shape.size() != 2 || shape[1] % heads || k.shape().size() != 2) {
        fail(Errc::shape, "attention: q ", shape, ", k ", k.shape(), " with ", heads, " heads");
    }
    // Causal, with the last query row at the last key: with more keys than rows the first of them are a past that every
    // row sees.
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

}}  // namespace qlora
