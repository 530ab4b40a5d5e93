// swiglu.cpp - y = silu(gate) * up, element by element, of one shape.
// With s = 1 / (1 + exp(-gate)):
//   dgate = dy * up * s * (1 + gate * (1 - s)),   dup = dy * gate * s
// Both in one pass: swiglu_back gives {2, elements}, dgate first; views split it.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace swiglu_room {

void shape(const GraphImpl& g, Node& n) {
    const Node &gate = float_source(g, n, 0), &up = float_source(g, n, 1);
    same_shape(n, gate, up);
    n.shape = gate.shape;
}

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float *gate = call.in(0), *up = call.in(1);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.swiglu(gate + first, up + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    const Tensor both = g.add(Op::swiglu_back, {g.handle(n.src[0]), g.handle(n.src[1]), g.handle(dy)});
    g.accumulate(n.src[0], view(both, 0, n.shape));
    g.accumulate(n.src[1], view(both, n.elements(), n.shape));
}

void back_shape(const GraphImpl& g, Node& n) {
    const Node &gate = float_source(g, n, 0), &up = float_source(g, n, 1), &dy = float_source(g, n, 2);
    same_shape(n, gate, up);
    same_shape(n, gate, dy);
    n.shape = {2, gate.elements()};
}

void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float *gate = call.in(0), *up = call.in(1), *dy = call.in(2);
    const int64_t count = call.source(0).elements();
    float *dgate = call.result(), *dup = dgate + count;
    split(call, count, 1, [&](int64_t first, int64_t last) {
        v.swiglu_back(gate + first, up + first, dy + first, dgate + first, dup + first, last - first);
    });
}

Tensor composed(GraphImpl& g, const Node& n) { return mul(silu(g.handle(n.src[0])), g.handle(n.src[1])); }

}  // namespace swiglu_room

const OpDef swiglu_def{.name = "swiglu",
                       .shape = swiglu_room::shape,
                       .cpu = swiglu_room::cpu,
                       .grad = swiglu_room::grad,
                       .composed = swiglu_room::composed};
const OpDef swiglu_back_def{
    .name = "swiglu_back", .shape = swiglu_room::back_shape, .cpu = swiglu_room::back_cpu, .grad = nullptr};

Tensor swiglu(Tensor gate, Tensor up) { return graph_of({gate, up}, "swiglu").add(Op::swiglu, {gate, up}); }

}}  // namespace qlora
