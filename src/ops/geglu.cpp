// geglu.cpp - y = gelu(gate) * up, element by element, of one shape. The gelu is the one of tanh:
//   gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x s,  s = 1 / (1 + exp(-x w)),
//   w = 2 sqrt(2 / pi) (1 + 0.044715 x^2)
// With v = 2 sqrt(2 / pi) (1 + 3 * 0.044715 gate^2), the derivative of gate * w:
//   dgate = dy * up * s * (1 + gate * (1 - s) * v),   dup = dy * gate * s
// gated.h has all the rest.
#include "src/ops/gated.h"

#include <cmath>
#include <numbers>

namespace qlora { inline namespace QLORA_ABI {
namespace geglu_room {

// The definition by tanh, which is softcap with a cap of 1.
Tensor composed(GraphImpl& g, const Node& n) {
    const Tensor x = g.handle(n.src[0]), cube = mul(x, mul(x, x));
    const Tensor inner = scale(add(x, scale(cube, 0.044715f)), std::sqrt(2 / std::numbers::pi_v<float>));
    return mul(scale(add(x, mul(x, softcap(inner, 1))), 0.5f), g.handle(n.src[1]));
}

}  // namespace geglu_room

const OpDef geglu_def{.name = "geglu", .shape = pair_shape, .grad = gated::grad<Op::geglu_back>,
                      .composed = geglu_room::composed};
const Kernel geglu_cpu{pair_cpu<&Vec::geglu>};
const OpDef geglu_back_def{.name = "geglu_back", .shape = gated::back_shape};
const Kernel geglu_back_cpu{gated::back_cpu<&Vec::geglu_back>};

Tensor geglu(Tensor gate, Tensor up) { return graph_of({gate, up}, "geglu").add(Op::geglu, {gate, up}); }

}}  // namespace qlora
