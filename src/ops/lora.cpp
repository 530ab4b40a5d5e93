// lora.cpp - y {rows, out} = base + s drop(x) A^T B^T, the low-rank path of a layer in one operation
// (arXiv:2106.09685).
//
// drop(x) is never kept: its mask is a function of (seed + step, stream, element), so the backward pass draws it again.
// With u = drop(x) A^T {rows, r} and v = s dy B {rows, r}:
//     dbase = dy        dx = drop'(v A)        dA {r, in} = v^T drop(x)        dB {out, r} = s dy^T u
// lora_back is the last two and v, flat; lora_dx the product with A. Apart, x is not read any more when its gradient is
// made, and without dropout dx is added where the gradient of x is made anyway.
// Rows go in chunks, so that the dropped copy of x stays small however long the batch is.
#include "src/cpu/drop.h"
#include "src/cpu/gemm.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace lora_room {

constexpr int64_t chunk_rows = 256;    // 1.5 MB of dropped x for a layer of 1536: second-level cache on most machines

struct Sizes { int64_t rows, in, out, rank; };

Sizes sizes(const Shape& base, const Shape& a) { return {base[0], a[1], base[1], a[0]}; }

// Floats, or where a backend takes it for so many rows a state in f16.
const Node& factor(const GraphImpl& g, const Node& node, int i, int64_t rows) {
    const bool halves = rows <= g.backend->rows_of_half_factors() && node.src[size_t(i)] >= 0 &&
                        g.source(node, i).dtype == DType::f16;
    return halves ? rows_source(g, node, i) : float_source(g, node, i);
}

// sources base or dy {rows, out}, x {rows, in}, a {r, in}, b {out, r}, with dropout the step
void check(const GraphImpl& g, const Node& node) {
    const Node &base = float_source(g, node, 0), &x = float_source(g, node, 1);
    const int64_t rows = base.shape[0];
    const Node &a = factor(g, node, 2, rows), &b = factor(g, node, 3, rows);
    const bool ranks = base.shape.size() == 2 && x.shape.size() == 2 && a.shape.size() == 2 && b.shape.size() == 2;
    if (!ranks || x.shape[0] != base.shape[0] || a.shape[1] != x.shape[1] ||
        b.shape != Shape{base.shape[1], a.shape[0]}) {
        fail(Errc::shape, op_def(node.op).name, ": base ", base.shape, ", x ", x.shape, ", A ", a.shape, ", B ",
             b.shape, ", expected {rows, out}, {rows, in}, {r, in}, {out, r}");
    }
    const LoraAttr attr = node.attr.get<LoraAttr>();
    if (!(attr.p >= 0 && attr.p < 1))
        fail(Errc::argument, "lora: dropout ", attr.p, " must be at least 0 and less than 1");
    if (attr.p > 0) index_source(g, node, 4, 2);
}

// to {rows, in} = from under the mask that belongs to the rows [row, row + rows) of x; source `step` says which it is.
void drop_rows(const Call& call, int step, int64_t row, int64_t rows, int64_t in, const float* from, float* to) {
    const LoraAttr attr = call.node.attr.get<LoraAttr>();
    const int64_t start = row * in;
    const uint64_t seed = attr.seed + step_of(call, step);
    split(call, rows * in, 1, [&](int64_t first, int64_t last) {
        drop(*cpu_of(call).kernels, from + first, to + first, start + first, last - first, attr.p, seed, attr.stream);
    });
}

void shape(const GraphImpl& g, Node& node) {
    check(g, node);
    node.shape = g.source(node, 0).shape;
}

// For a chunk of rows: u, and behind it drop(x), where there is dropout.
int64_t scratch(const GraphImpl& g, const Node& node) {
    const Sizes s = sizes(g.source(node, 0).shape, g.source(node, 2).shape);
    const int64_t dropped = node.attr.get<LoraAttr>().p > 0 ? s.in : 0;
    return std::min(s.rows, chunk_rows) * (s.rank + dropped) * 4;
}

void forward(const Call& call) {
    const Sizes s = sizes(call.source(0).shape, call.source(2).shape);
    const LoraAttr attr = call.node.attr.get<LoraAttr>();
    Cpu& cpu = cpu_of(call);
    float* u = static_cast<float*>(call.scratch);                          // {chunk, r}
    float* dropped = u + std::min(s.rows, chunk_rows) * s.rank;            // {chunk, in}
    const float* base = call.in(0);
    float* y = call.result();
    for (int64_t row = 0; row < s.rows; row += chunk_rows) {
        const int64_t rows = std::min(chunk_rows, s.rows - row);
        const float* x = call.in(1) + row * s.in;
        if (attr.p > 0) { drop_rows(call, 4, row, rows, s.in, x, dropped); x = dropped; }
        if (y != base) std::copy_n(base + row * s.out, rows * s.out, y + row * s.out);
        gemm_nt(cpu, rows, x, s.in, call.matrix(2), u, s.rank);
        gemm_nt(cpu, rows, u, s.rank, call.matrix(3), y + row * s.out, s.out, attr.scale, 1);
    }
}

// ---- Layers of one x and their low-rank paths, when it has few rows: in one round of products all W and all A meet x,
// in a second one what B makes of that is added.
constexpr size_t most_layers = most_gemvs / 2;

std::vector<int32_t> layers_of_x(const GraphImpl& g, std::span<const int32_t> run, size_t first) {
    const Node& node = g.node(run[first]);
    if (node.op != Op::qmatmul || node.shape[0] > g.backend->rows_alike(WeightRef{})) return {};   // dense factors
    const auto reads_x = [&](int32_t id) { return g.node(id).op == Op::lora && g.node(id).src[1] == node.src[0]; };
    const auto path = std::find_if(run.begin() + ptrdiff_t(first), run.end(), reads_x);
    if (path == run.end()) return {};
    std::vector<int32_t> group = neighbours(g, run, first, 0, most_layers);
    const auto many = [&](int32_t id) {
        return node.shape[0] > g.backend->rows_alike(g.source(g.node(id), 1).weight->ref());
    };
    if (std::any_of(group.begin(), group.end(), many)) return {};
    const std::vector<int32_t> products = group;
    std::vector<int32_t> open = products;              // without a path yet
    const auto among = [&](int32_t id) {
        return std::find(products.begin(), products.end(), g.root(id)) != products.end();
    };
    for (const int32_t id : neighbours(g, run, size_t(path - run.begin()), 1, most_layers)) {
        const Node& n = g.node(id);
        const bool fits = n.attr.get<LoraAttr>().p == 0 && !among(n.src[2]) && !among(n.src[3]);
        if (fits && std::erase(open, n.src[0])) group.push_back(id);
    }
    std::sort(group.begin(), group.end());
    return group.size() > products.size() ? group : std::vector<int32_t>{};
}

void forward_of_x(std::span<const Call> calls) {
    thread_local Scratch memory;
    const int64_t rows = calls[0].node.shape[0];
    const auto path_of = [&](const Node& layer) {
        return std::find_if(calls.begin(), calls.end(), [&](const Call& c) {
            return c.node.op == Op::lora && &c.source(0) == &layer;
        });
    };
    int64_t ranks = 0;
    for (const Call& call : calls) ranks += call.node.op == Op::lora ? call.source(2).shape[0] : 0;
    float* u = memory.floats(rows * ranks);            // {rows, r} of one path after the other
    Gemv of_x[most_gemvs], up[most_layers];
    size_t count = 0, paths = 0;
    for (const Call& call : calls) {
        if (call.node.op == Op::qmatmul) {             // what only its path reads is made where that goes on
            float* const y = call.out ? call.result() : path_of(call.node)->result();
            of_x[count++] = {call.matrix(1), call.in(0), call.source(0).shape[1], y, call.node.shape[1]};
            continue;
        }
        const Sizes s = sizes(call.node.shape, call.source(2).shape);
        of_x[count++] = {call.matrix(2), call.in(1), s.in, u, s.rank};
        up[paths++] = {call.matrix(3), u, s.rank, call.result(), s.out, call.node.attr.get<LoraAttr>().scale, 1};
        u += rows * s.rank;
    }
    gemv(cpu_of(calls[0]), rows, std::span(of_x, count));
    for (const Call& call : calls)
        if (call.node.op == Op::lora && call.src[0]) std::copy_n(call.in(0), call.node.elements(), call.result());
    gemv(cpu_of(calls[0]), rows, std::span(up, paths));
}

void back_shape(const GraphImpl& g, Node& node) {      // flat [v | dA | dB]
    check(g, node);
    const Sizes s = sizes(g.source(node, 0).shape, g.source(node, 2).shape);
    node.shape = {s.rank * (s.rows + s.in + s.out)};
}

void backward(const Call& call) {
    const Sizes s = sizes(call.source(0).shape, call.source(2).shape);
    const LoraAttr attr = call.node.attr.get<LoraAttr>();
    Cpu& cpu = cpu_of(call);
    float* u = static_cast<float*>(call.scratch);                          // {chunk, r}
    float* dropped = u + std::min(s.rows, chunk_rows) * s.rank;            // {chunk, in}
    float *v = call.result(), *da = v + s.rows * s.rank, *db = da + s.rank * s.in;
    for (int64_t row = 0; row < s.rows; row += chunk_rows, v += chunk_rows * s.rank) {
        const int64_t rows = std::min(chunk_rows, s.rows - row);
        const float *x = call.in(1) + row * s.in, *dy = call.in(0) + row * s.out;
        const float sum = row > 0 ? 1 : 0;             // dA and dB add up over the chunks, in order
        if (attr.p > 0) { drop_rows(call, 4, row, rows, s.in, x, dropped); x = dropped; }
        gemm_nt(cpu, rows, x, s.in, call.matrix(2), u, s.rank);
        gemm_nn(cpu, rows, dy, s.out, call.matrix(3), v, s.rank, attr.scale);
        gemm_tn(cpu, rows, s.rank, s.in, v, s.rank, x, s.in, da, s.in, 1, sum);
        gemm_tn(cpu, rows, s.out, s.rank, dy, s.out, u, s.rank, db, s.rank, attr.scale, sum);
    }
}

// sources v {rows, r}, a {r, in}, without dropout perhaps what dx is added to {rows, in}, with it the step
void dx_shape(const GraphImpl& g, Node& node) {
    const Node &v = float_source(g, node, 0), &a = float_source(g, node, 1);
    if (v.shape.size() != 2 || a.shape.size() != 2 || v.shape[1] != a.shape[0])
        fail(Errc::shape, "lora_dx: v ", v.shape, " and A ", a.shape, ", expected {rows, r}, {r, in}");
    node.shape = {v.shape[0], a.shape[1]};
    check_base(g, node, 2);
    if (node.attr.get<LoraAttr>().p == 0) return;
    index_source(g, node, 3, 2);
    if (node.src[2] >= 0) fail(Errc::argument, "lora_dx: with dropout it is added to nothing");
}

void dx(const Call& call) {
    const Shape &v = call.source(0).shape, &a = call.source(1).shape;
    float* to = call.result();
    gemm_nn(cpu_of(call), v[0], call.in(0), v[1], call.matrix(1), to, a[1], 1, begin_with_base(call, 2));
    if (call.node.attr.get<LoraAttr>().p > 0) drop_rows(call, 3, 0, v[0], a[1], to, to);
}

void grad(GraphImpl& g, const Node& forward, int32_t, int32_t dy) {
    const auto& src = forward.src;
    const int32_t x = src[1], a = src[2], b = src[3];
    g.accumulate(src[0], g.handle(dy));
    const Tensor step = src[4] >= 0 ? g.handle(src[4]) : Tensor{};
    const Tensor back = g.add(Op::lora_back, {g.handle(dy), g.handle(x), g.handle(a), g.handle(b), step}, forward.attr);
    const Shape v{g.node(dy).shape[0], g.node(a).shape[0]};
    const int64_t da = elements_of(v), db = da + g.node(a).elements();
    if (g.wants_grad(a)) g.accumulate(a, view(back, da, g.node(a).shape));
    if (g.wants_grad(b)) g.accumulate(b, view(back, db, g.node(b).shape));
    if (!g.wants_grad(x)) return;
    const bool joins = step.id() < 0;
    const Tensor dx = g.add(Op::lora_dx, {view(back, 0, v), g.handle(a), joins ? g.gradient(x) : Tensor{}, step},
                            forward.attr);
    if (joins) g.replace_gradient(x, dx);
    else g.accumulate(x, dx);
}

Tensor composed(GraphImpl& g, const Node& node) {
    const auto& src = node.src;
    const LoraAttr a = node.attr.get<LoraAttr>();
    DropoutAttr d;
    d.p = a.p;
    d.seed = a.seed;
    d.stream = a.stream;
    const Tensor x = a.p > 0 ? dropout(g.handle(src[1]), d) : g.handle(src[1]);
    return add(g.handle(src[0]), scale(matmul(matmul(x, g.handle(src[2])), g.handle(src[3])), a.scale));
}

}  // namespace lora_room

const OpDef lora_def{.name = "lora", .shape = lora_room::shape, .grad = lora_room::grad,
                     .over = 0b1, .composed = lora_room::composed};
const Kernel lora_cpu{lora_room::forward, lora_room::scratch};
const OpDef lora_back_def{.name = "lora_back", .shape = lora_room::back_shape};
const Kernel lora_back_cpu{lora_room::backward, lora_room::scratch};
const OpDef lora_dx_def{.name = "lora_dx", .shape = lora_room::dx_shape, .over = 0b100};
const Kernel lora_dx_cpu{lora_room::dx};
const Fusion adapted_cpu{"layers of one x and their adapters", lora_room::layers_of_x, lora_room::forward_of_x};

Tensor lora(Tensor base, Tensor x, Tensor a, Tensor b, const LoraAttr& attr) {
    GraphImpl& g = graph_of({base, x, a, b}, "lora");
    return g.add(Op::lora, {base, x, a, b, attr.p > 0 ? g.step() : Tensor{}}, attr_of(attr));
}

}}  // namespace qlora
