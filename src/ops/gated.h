// gated.h - what the gated products of a feed-forward share, y = act(gate) * up of one shape: all but the activation,
// which is a pair of loops of Vec. The gradient towards up is the product itself, dup = act(gate) * dy. Each of the two
// is an operation of its own, so that either can take the place of what it is the last to read.
#pragma once
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gated {

template <Op back>
void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    const Tensor gate = g.handle(n.src[0]), up = g.handle(n.src[1]), out = g.handle(dy);
    if (g.wants_grad(n.src[0])) g.accumulate(n.src[0], g.add(back, {gate, up, out}, n.attr));
    if (g.wants_grad(n.src[1])) g.accumulate(n.src[1], g.add(n.op, {gate, out}, n.attr));
}

inline void back_shape(const GraphImpl& g, Node& n) {
    const Node &gate = float_source(g, n, 0), &up = float_source(g, n, 1), &dy = float_source(g, n, 2);
    same_shape(n, gate, up);
    same_shape(n, gate, dy);
    n.shape = gate.shape;
}

template <auto loop>
void back_cpu(const Call& call) {
    const auto run = cpu_of(call).kernels->vec.*loop;
    const float *gate = call.in(0), *up = call.in(1), *dy = call.in(2);
    float* dgate = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        run(gate + first, up + first, dy + first, dgate + first, last - first);
    });
}

}  // namespace gated
}}  // namespace qlora
