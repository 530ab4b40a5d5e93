// accumulate.cpp - state += x, in place; the result is the state. It sums the gradients of several micro-batches, so it
// has none of its own.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace accumulate_room {

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float* x = call.in(1);
    float* state = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.add(state + first, x + first, state + first, last - first); });
}

}  // namespace accumulate_room

const OpDef accumulate_def{.name = "accumulate", .shape = updated_by_its_like, .aliases = 0, .effect = true};
const Kernel accumulate_cpu{accumulate_room::cpu};

Tensor accumulate(Tensor state, Tensor x) { return graph_of({state, x}, "accumulate").add(Op::accumulate, {state, x}); }

}}  // namespace qlora
