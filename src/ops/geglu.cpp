// geglu.cpp - y = gelu(gate) * up, element by element, of one shape. The gelu is the one of tanh:
//   gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x s,  s = 1 / (1 + exp(-x w)),
//   w = 2 sqrt(2 / pi) (1 + 0.044715 x^2)
// With v = 2 sqrt(2 / pi) (1 + 3 * 0.044715 gate^2), the derivative of gate * w:
//   dgate = dy * up * s * (1 + gate * (1 - s) * v),   dup = dy * gate * s
// Both in one pass: geglu_back gives {2, elements}, dgate first; views split it.
#include "src/ops/rooms.h"

#include <cmath>
#include <numbers>

namespace qlora { inline namespace QLORA_ABI {
namespace geglu_room {

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
          [&](int64_t first, int64_t last) { v.geglu(gate + first, up + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    const Tensor both = g.add(Op::geglu_back, {g.handle(n.src[0]), g.handle(n.src[1]), g.handle(dy)});
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
        v.geglu_back(gate + first, up + first, dy + first, dgate + first, dup + first, last - first);
    });
}

// The definition by tanh, which is softcap with a cap of 1.
Tensor composed(GraphImpl& g, const Node& n) {
    const Tensor x = g.handle(n.src[0]), cube = mul(x, mul(x, x));
    const Tensor inner = scale(add(x, scale(cube, 0.044715f)), std::sqrt(2 / std::numbers::pi_v<float>));
    return mul(scale(add(x, mul(x, softcap(inner, 1))), 0.5f), g.handle(n.src[1]));
}

}  // namespace geglu_room

const OpDef geglu_def{.name = "geglu",
                      .shape = geglu_room::shape,
                      .cpu = geglu_room::cpu,
                      .grad = geglu_room::grad,
                      .composed = geglu_room::composed};
const OpDef geglu_back_def{
    .name = "geglu_back", .shape = geglu_room::back_shape, .cpu = geglu_room::back_cpu, .grad = nullptr};

Tensor geglu(Tensor gate, Tensor up) { return graph_of({gate, up}, "geglu").add(Op::geglu, {gate, up}); }

}}  // namespace qlora
