// dropout.cpp - y[e] = keep(e) ? x[e] / (1 - p) : 0, keep(e) = uniform(seed + step, stream, e) >= p.
// dx = dropout(dy), the same mask.
// The mask is a function and is never stored: the backward pass, a recomputation, any thread and any device find the
// same one.
#include "src/cpu/drop.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace dropout_room {

void shape(const GraphImpl& g, Node& n) {
    const float p = n.attr.get<DropoutAttr>().p;
    if (!(p >= 0 && p < 1)) fail(Errc::argument, "dropout: probability ", p, ", expected at least 0 and below 1");
    n.shape = float_source(g, n, 0).shape;
    index_source(g, n, 1, 2);
}

void cpu(const Call& call) {
    const DropoutAttr a = call.node.attr.get<DropoutAttr>();
    const uint64_t step = step_of(call, 1);
    const float* x = call.in(0);
    float* y = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        drop(*cpu_of(call).kernels, x + first, y + first, first, last - first, a.p, a.seed + step, a.stream);
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], dropout(g.handle(dy), n.attr.get<DropoutAttr>()));
}

}  // namespace dropout_room

const OpDef dropout_def{.name = "dropout", .shape = dropout_room::shape, .grad = dropout_room::grad, .over = 0b1};
const Kernel dropout_cpu{dropout_room::cpu};

Tensor dropout(Tensor x, const DropoutAttr& a) {
    GraphImpl& g = graph_of({x}, "dropout");
    return g.add(Op::dropout, {x, g.step()}, attr_of(a));
}

}}  // namespace qlora
