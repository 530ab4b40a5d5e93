// geglu.cpp - y = gelu(gate) * up, element by element, of one shape; gelu in either of its forms (src/ops/gelu.cpp):
//   dgate = dy * up * gelu'(gate)                                             (geglu_back)
// gated.h has all the rest.
#include "src/ops/gated.h"

namespace qlora { inline namespace QLORA_ABI {
namespace geglu_room {

bool by_tanh(const Node& n) { return n.attr.get<GeluAttr>().form == Gelu::tanh; }

void cpu(const Call& call) {
    if (by_tanh(call.node)) pair_cpu<&Vec::geglu>(call);
    else pair_cpu<&Vec::geglu_erf>(call);
}

void back_cpu(const Call& call) {
    if (by_tanh(call.node)) gated::back_cpu<&Vec::geglu_back>(call);
    else gated::back_cpu<&Vec::geglu_erf_back>(call);
}

Tensor composed(GraphImpl& g, const Node& n) {
    return mul(gelu(g.handle(n.src[0]), n.attr.get<GeluAttr>().form), g.handle(n.src[1]));
}

}  // namespace geglu_room

const OpDef geglu_def{.name = "geglu", .shape = pair_shape, .grad = gated::grad<Op::geglu_back>,
                      .over = 0b11, .composed = geglu_room::composed};
const Kernel geglu_cpu{geglu_room::cpu};
const OpDef geglu_back_def{.name = "geglu_back", .shape = gated::back_shape, .over = 0b111};
const Kernel geglu_back_cpu{geglu_room::back_cpu};

Tensor geglu(Tensor gate, Tensor up, Gelu form) {
    return graph_of({gate, up}, "geglu").add(Op::geglu, {gate, up}, attr_of(GeluAttr{form}));
}

}}  // namespace qlora
