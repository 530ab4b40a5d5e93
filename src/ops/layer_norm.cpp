// layer_norm.cpp - y = z * w + b by rows of n, z = r * (x - mean(x)), r = 1 / sqrt(mean((x - mean(x))^2) + eps); x
// {..., n}, w {n} and b {n}, each of which may be absent (arXiv:1607.06450). With g = w * dy:
//   dx = r * (g - mean(g)) - r^3 / n * c * sum(g * c),  c = x - mean(x)         (layer_norm_back)
//   dw = sum over rows of dy * z                                                (layer_norm_dw)
//   db = sum over rows of dy                                                    (bias_back)
// The mean is taken twice, of x and of what is left when the first is subtracted: a row that is far from 0 beside its
// spread keeps its digits. All of it is computed again from x in the backward pass.
#include "src/cpu/scratch.h"
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace layer_norm_room {

void check_factor(const GraphImpl& g, const Node& n, int i, const char* what) {
    if (n.src[size_t(i)] < 0) return;
    const Node &x = g.source(n, 0), &f = weight_source(g, n, i);
    if (f.elements() != last_dim(x))
        fail(Errc::shape, op_def(n.op).name, ": a ", what, " of shape ", f.shape, " for rows of ", x.shape,
             ", expected [", last_dim(x), "]");
}

void shape(const GraphImpl& g, Node& n) {
    n.shape = float_source(g, n, 0).shape;
    check_factor(g, n, 1, "weight");
    check_factor(g, n, 2, "bias");
}

struct Row { float mean, rest, r; };                   // mean + rest: the mean, in more digits than a float has

// c = x - mean(x)
Row centered(const Vec& v, const float* x, float* c, int64_t n, float eps) {
    Row row;
    row.mean = v.sum(x, n) / float(n);
    v.shift(-row.mean, x, c, n);
    row.rest = v.sum(c, n) / float(n);
    v.shift(-row.rest, c, c, n);
    row.r = 1 / std::sqrt(v.dot(c, c, n) / float(n) + eps);
    return row;
}

int64_t factor_bytes(const GraphImpl& g, const Node& n, int i) {
    return n.src[size_t(i)] < 0 ? 0 : decoded_bytes(g.source(n, i));
}
int64_t scratch(const GraphImpl& g, const Node& n) { return factor_bytes(g, n, 1) + factor_bytes(g, n, 2); }
int64_t back_scratch(const GraphImpl& g, const Node& n) { return factor_bytes(g, n, 1); }

const float* factor(const Call& call, int i) {         // null where it is absent
    if (!call.has(i)) return nullptr;
    const int64_t before = i == 1 ? 0 : factor_bytes(call.graph, call.node, 1);
    return decoded_source(call, i, reinterpret_cast<float*>(static_cast<char*>(call.scratch) + before));
}

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float eps = call.node.attr.get<LayerNormAttr>().eps;
    const int64_t n = last_dim(call.node);
    const float *x = call.in(0), *w = factor(call, 1), *b = factor(call, 2);
    float* y = call.result();
    split(call, leading(call.node), n, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            float* yr = y + row * n;
            v.scale(centered(v, x + row * n, yr, n, eps).r, yr, yr, n);
            if (w) v.mul(yr, w, yr, n);
            if (b) v.add(yr, b, yr, n);
        }
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    const Tensor x = g.handle(n.src[0]), w = n.src[1] < 0 ? Tensor{} : g.handle(n.src[1]), d = g.handle(dy);
    if (g.wants_grad(n.src[0])) g.accumulate(n.src[0], g.add(Op::layer_norm_back, {x, w, d}, n.attr));
    if (g.wants_grad(n.src[1])) g.accumulate(n.src[1], g.add(Op::layer_norm_dw, {x, d}, n.attr));
    if (g.wants_grad(n.src[2])) g.accumulate(n.src[2], g.add(Op::bias_back, {d}));
}

void back_shape(const GraphImpl& g, Node& n) {
    n.shape = float_source(g, n, 0).shape;
    check_factor(g, n, 1, "weight");
    same_shape(n, g.source(n, 0), float_source(g, n, 2));
}

void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float eps = call.node.attr.get<LayerNormAttr>().eps;
    const int64_t n = last_dim(call.node);
    const float *x = call.in(0), *w = factor(call, 1), *dy = call.in(2);
    float* dx = call.result();
    split(call, leading(call.node), n, [&](int64_t first, int64_t last) {
        thread_local Scratch memory;
        float* c = memory.floats(n);
        for (int64_t row = first; row < last; ++row) {
            float* out = dx + row * n;
            const float* g = dy + row * n;
            const float r = centered(v, x + row * n, c, n, eps).r;
            if (w) v.mul(w, g, out, n), g = out;
            const float along = v.dot(g, c, n);
            v.shift(-v.sum(g, n) / float(n), g, out, n);
            v.scale(r, out, out, n);
            v.axpy(-r * r * r / float(n) * along, c, out, n);
        }
    });
}

void dw_shape(const GraphImpl& g, Node& n) {
    same_shape(n, float_source(g, n, 0), float_source(g, n, 1));
    n.shape = {last_dim(g.source(n, 0))};
}

int64_t dw_scratch(const GraphImpl& g, const Node& n) { return leading(g.source(n, 0)) * int64_t(sizeof(Row)); }

// First every row's numbers, then columns in tasks (16, a cache line, the unit) with the rows added in order.
void dw_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float eps = call.node.attr.get<LayerNormAttr>().eps;
    const int64_t n = last_dim(call.node), rows = leading(call.source(0));
    const float *x = call.in(0), *dy = call.in(1);
    float* dw = call.result();
    Row* known = static_cast<Row*>(call.scratch);      // {rows}
    split(call, rows, n, [&](int64_t first, int64_t last) {
        thread_local Scratch memory;
        float* c = memory.floats(n);
        for (int64_t row = first; row < last; ++row) known[row] = centered(v, x + row * n, c, n, eps);
    });
    split(call, (n + 15) / 16, 16 * rows, [&](int64_t first, int64_t last) {
        const int64_t begin = first * 16, end = std::min(n, last * 16);
        std::fill(dw + begin, dw + end, 0.0f);
        for (int64_t row = 0; row < rows; ++row) {
            const Row k = known[row];
            for (int64_t c = begin; c < end; ++c) dw[c] += dy[row * n + c] * (x[row * n + c] - k.mean - k.rest) * k.r;
        }
    });
}

}  // namespace layer_norm_room

const OpDef layer_norm_def{.name = "layer_norm", .shape = layer_norm_room::shape, .grad = layer_norm_room::grad};
const Kernel layer_norm_cpu{layer_norm_room::cpu, layer_norm_room::scratch};
const OpDef layer_norm_back_def{.name = "layer_norm_back", .shape = layer_norm_room::back_shape};
const Kernel layer_norm_back_cpu{layer_norm_room::back_cpu, layer_norm_room::back_scratch};
const OpDef layer_norm_dw_def{.name = "layer_norm_dw", .shape = layer_norm_room::dw_shape};
const Kernel layer_norm_dw_cpu{layer_norm_room::dw_cpu, layer_norm_room::dw_scratch};

Tensor layer_norm(Tensor x, Tensor w, Tensor b, float eps) {
    return graph_of({x}, "layer_norm").add(Op::layer_norm, {x, w, b}, attr_of(LayerNormAttr{eps}));
}

}}  // namespace qlora
