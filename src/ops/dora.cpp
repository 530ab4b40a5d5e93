// dora.cpp - weights as magnitude and direction (arXiv:2402.09353): y = m (W x + s B A x) / n, n[o] = || row o of W + s
// B A ||.
//
//   dora_norm    n {out}: rows of W are decoded a group at a time, s B A is added to them in cache: no dense copy of W
//                ever exists. It counts as a constant, as in section 4.3 of the paper: no gradient flows through it.
//   dora_scale   y {rows, out} = z m / n.    dz = dy m / n (the same operation),
//                dm[o] = sum over rows of dy z / n (dora_scale_dm).
//
// A row of zeros has no direction: y is 0 there.
#include "src/cpu/kernels.h"
#include "src/cpu/tile.h"
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace dora_room {

constexpr int64_t group = 4;    // rows a task: 4 rows of 4096 are 64 KiB; fewer would decode some types badly

void norm_shape(const GraphImpl& g, Node& node) {      // sources W {out, in}, a {r, in}, b {out, r}
    const Node &w = weight_source(g, node, 0), &a = float_source(g, node, 1), &b = float_source(g, node, 2);
    if (w.shape.size() != 2 || a.shape.size() != 2 || a.shape[1] != w.shape[1] ||
        b.shape != Shape{w.shape[0], a.shape[0]})
        fail(Errc::shape, "dora_norm: W ", w.shape, ", A ", a.shape, ", B ", b.shape,
             ", expected {out, in}, {r, in}, {out, r}");
    node.shape = {w.shape[0]};
}

void norm(const Call& call) {
    const WeightRef w = call.matrix(0);
    const int64_t rank = call.source(1).shape[0];
    const float scale = call.node.attr.get<ScaleAttr>().factor;
    const float *a = call.in(1), *b = call.in(2);
    float* n = call.result();
    const Cpu& cpu = cpu_of(call);
    const Vec& v = cpu.kernels->vec;
    cpu_of(call).pool.run((w.rows + group - 1) / group, [&](int64_t task, int) {
        thread_local Scratch memory;
        const int64_t first = task * group, rows = std::min(group, w.rows - first);
        float* decoded = memory.floats(float_rows_size(group, w.cols) + w.cols + rank);
        float *row = decoded + float_rows_size(group, w.cols), *weights = row + w.cols;
        const FloatRows from = float_rows(*cpu.kernels, w, w.cols, first, rows, 0, w.cols, decoded);
        for (int64_t r = 0; r < rows; ++r) {
            v.scale(scale, b + (first + r) * rank, weights, rank);
            std::copy_n(from.data + r * from.ld, w.cols, row);
            cpu.kernels->tile.mix(weights, a, w.cols, rank, w.cols, row);
            n[first + r] = std::sqrt(v.dot(row, row, w.cols));
        }
    });
}

void scale_shape(const GraphImpl& g, Node& node) {     // sources z or dy {rows, out}, m {out}, n {out}
    const Node &z = float_source(g, node, 0), &m = float_source(g, node, 1), &n = float_source(g, node, 2);
    const Shape out{last_dim(z)};
    if (m.shape != out || n.shape != out)
        fail(Errc::shape, "dora_scale: magnitudes ", m.shape, " and norms ", n.shape, " for the rows of ", z.shape,
             ", expected ", out);
    node.shape = z.shape;
}

int64_t scale_scratch(const GraphImpl& g, const Node& node) { return g.source(node, 1).elements() * 4; }

void scale(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t out = last_dim(call.node);
    const float *z = call.in(0), *m = call.in(1), *n = call.in(2);
    float *y = call.result(), *factor = static_cast<float*>(call.scratch);
    for (int64_t o = 0; o < out; ++o) factor[o] = n[o] > 0 ? m[o] / n[o] : 0;
    split(call, leading(call.node), out, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) v.mul(z + r * out, factor, y + r * out, out);
    });
}

void grad(GraphImpl& g, const Node& forward, int32_t, int32_t dy) {
    const auto& src = forward.src;
    const Tensor m = g.handle(src[1]), n = g.handle(src[2]);
    if (g.wants_grad(src[0])) g.accumulate(src[0], g.add(Op::dora_scale, {g.handle(dy), m, n}));
    if (g.wants_grad(src[1])) g.accumulate(src[1], g.add(Op::dora_scale_dm, {g.handle(dy), g.handle(src[0]), n}));
}

void dm_shape(const GraphImpl& g, Node& node) {        // sources dy {rows, out}, z {rows, out}, n {out}
    same_shape(node, float_source(g, node, 0), float_source(g, node, 1));
    node.shape = {last_dim(g.source(node, 0))};
}

// Columns are split between tasks, rows are added in order: 16 columns, a cache line, are the unit.
void dm(const Call& call) {
    const int64_t out = call.node.shape[0], rows = leading(call.source(0));
    const float *dy = call.in(0), *z = call.in(1), *n = call.in(2);
    float* sum = call.result();
    split(call, (out + 15) / 16, 16 * rows, [&](int64_t first, int64_t last) {
        const int64_t begin = first * 16, end = std::min(out, last * 16);
        std::fill(sum + begin, sum + end, 0.0f);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t o = begin; o < end; ++o) sum[o] += dy[r * out + o] * z[r * out + o];
        for (int64_t o = begin; o < end; ++o) sum[o] = n[o] > 0 ? sum[o] / n[o] : 0;
    });
}

}  // namespace dora_room

const OpDef dora_norm_def{.name = "dora_norm", .shape = dora_room::norm_shape};
const Kernel dora_norm_cpu{dora_room::norm};
const OpDef dora_scale_def{.name = "dora_scale", .shape = dora_room::scale_shape, .grad = dora_room::grad, .over = 0b1};
const Kernel dora_scale_cpu{dora_room::scale, dora_room::scale_scratch};
const OpDef dora_scale_dm_def{.name = "dora_scale_dm", .shape = dora_room::dm_shape};
const Kernel dora_scale_dm_cpu{dora_room::dm};

Tensor dora_norm(Tensor w, Tensor a, Tensor b, float scale) {
    return graph_of({w, a, b}, "dora_norm").add(Op::dora_norm, {w, a, b}, attr_of(ScaleAttr{scale}));
}

Tensor dora_scale(Tensor z, Tensor m, Tensor n) {
    return graph_of({z, m, n}, "dora_scale").add(Op::dora_scale, {z, m, n});
}

}}  // namespace qlora
