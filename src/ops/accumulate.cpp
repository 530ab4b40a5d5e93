// accumulate.cpp - state += x, in place; the result is the state. It sums the gradients of several micro-batches, so it
// has none of its own.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace accumulate_room {

void shape(const GraphImpl& g, Node& n) {
    const Node &state = updated_floats(g, n, 0), &x = float_source(g, n, 1);
    same_shape(n, state, x);
    n.shape = state.shape;
}

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float* x = call.in(1);
    float* state = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.add(state + first, x + first, state + first, last - first); });
}

}  // namespace accumulate_room

const OpDef accumulate_def{.name = "accumulate", .shape = accumulate_room::shape, .aliases = 0, .effect = true};
const Kernel accumulate_cpu{accumulate_room::cpu};

Tensor accumulate(Tensor state, Tensor x) { return graph_of({state, x}, "accumulate").add(Op::accumulate, {state, x}); }

}}  // namespace qlora
