// gelu.cpp - y = x Phi(x), element by element, Phi the share of a normal distribution that lies below x
// (arXiv:1606.08415), in one of two forms:
//   erf:   Phi(x) = (1 + erf(x / sqrt(2))) / 2
//   tanh:  x Phi(x) ~ x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
//   dx = dy * the derivative of either                                          (gelu_back)
// How both are computed: src/cpu/exp_constants.h. The loops are those of geglu without its second factor.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace gelu_room {

void shape(const GraphImpl& g, Node& n) { n.shape = float_source(g, n, 0).shape; }

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const auto loop = call.node.attr.get<GeluAttr>().form == Gelu::tanh ? v.geglu : v.geglu_erf;
    const float* x = call.in(0);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { loop(x + first, nullptr, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.add(Op::gelu_back, {g.handle(n.src[0]), g.handle(dy)}, n.attr));
}

void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const auto loop = call.node.attr.get<GeluAttr>().form == Gelu::tanh ? v.geglu_back : v.geglu_erf_back;
    const float *x = call.in(0), *dy = call.in(1);
    float* dx = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { loop(x + first, nullptr, dy + first, dx + first, last - first); });
}

}  // namespace gelu_room

const OpDef gelu_def{.name = "gelu", .shape = gelu_room::shape, .grad = gelu_room::grad, .over = 0b1};
const Kernel gelu_cpu{gelu_room::cpu};
const OpDef gelu_back_def{.name = "gelu_back", .shape = pair_shape, .over = 0b11};
const Kernel gelu_back_cpu{gelu_room::back_cpu};

Tensor gelu(Tensor x, Gelu form) { return graph_of({x}, "gelu").add(Op::gelu, {x}, attr_of(GeluAttr{form})); }

}}  // namespace qlora
