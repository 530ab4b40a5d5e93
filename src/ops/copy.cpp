// copy.cpp - state = x, in place; the result is the state. It keeps what a graph computes for other graphs, so it has
// no gradient.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace copy_room {

void cpu(const Call& call) {
    const float* x = call.in(1);
    float* state = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { std::copy(x + first, x + last, state + first); });
}

}  // namespace copy_room

const OpDef copy_def{.name = "copy", .shape = updated_by_its_like, .aliases = 0, .effect = true};
const Kernel copy_cpu{copy_room::cpu};

Tensor copy(Tensor state, Tensor x) { return graph_of({state, x}, "copy").add(Op::copy, {state, x}); }

}}  // namespace qlora
