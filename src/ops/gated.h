// gated.h - what the gated products of a feed-forward share, y = act(gate) * up of one shape: all but the activation,
// which is a pair of loops of Vec. The gradient is one pass: {2, elements}, dgate first; views split it.
#pragma once
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gated {

template <Op back>
void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    const Tensor both = g.add(back, {g.handle(n.src[0]), g.handle(n.src[1]), g.handle(dy)}, n.attr);
    g.accumulate(n.src[0], view(both, 0, n.shape));
    g.accumulate(n.src[1], view(both, n.elements(), n.shape));
}

inline void back_shape(const GraphImpl& g, Node& n) {
    const Node &gate = float_source(g, n, 0), &up = float_source(g, n, 1), &dy = float_source(g, n, 2);
    same_shape(n, gate, up);
    same_shape(n, gate, dy);
    n.shape = {2, gate.elements()};
}

template <auto loop>
void back_cpu(const Call& call) {
    const auto run = cpu_of(call).kernels->vec.*loop;
    const float *gate = call.in(0), *up = call.in(1), *dy = call.in(2);
    const int64_t count = call.source(0).elements();
    float *dgate = call.result(), *dup = dgate + count;
    split(call, count, 1, [&](int64_t first, int64_t last) {
        run(gate + first, up + first, dy + first, dgate + first, dup + first, last - first);
    });
}

}  // namespace gated
}}  // namespace qlora
