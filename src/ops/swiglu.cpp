// swiglu.cpp - y = silu(gate) * up, element by element, of one shape.
// With s = 1 / (1 + exp(-gate)):
//   dgate = dy * up * s * (1 + gate * (1 - s))                                (swiglu_back)
// gated.h has all the rest.
#include "src/ops/gated.h"

namespace qlora { inline namespace QLORA_ABI {
namespace swiglu_room {

Tensor composed(GraphImpl& g, const Node& n) { return mul(silu(g.handle(n.src[0])), g.handle(n.src[1])); }

}  // namespace swiglu_room

const OpDef swiglu_def{.name = "swiglu", .shape = pair_shape, .grad = gated::grad<Op::swiglu_back>,
                       .over = 0b11, .composed = swiglu_room::composed};
const Kernel swiglu_cpu{pair_cpu<&Vec::swiglu>};
const OpDef swiglu_back_def{.name = "swiglu_back", .shape = gated::back_shape, .over = 0b111};
const Kernel swiglu_back_cpu{gated::back_cpu<&Vec::swiglu_back>};

Tensor swiglu(Tensor gate, Tensor up) { return graph_of({gate, up}, "swiglu").add(Op::swiglu, {gate, up}); }

}}  // namespace qlora
