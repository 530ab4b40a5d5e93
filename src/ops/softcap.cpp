// softcap.cpp - y = cap * tanh(x / cap), element by element: x near 0, never beyond the cap.
//   dx = dy * (1 - (y / cap)^2)                                               (softcap_back, which reads y)
// y is within 5 ulp of the exact value (tests/cpu/vec_test.cpp); 1 - (y / cap)^2 within 1e-6, so that a gradient near
// the cap is 0 or tiny, never large.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace softcap_room {

void shape(const GraphImpl& g, Node& n) {
    n.shape = float_source(g, n, 0).shape;
    check_cap(n, n.attr.get<SoftcapAttr>().cap, false);
}

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float cap = call.node.attr.get<SoftcapAttr>().cap;
    const float* x = call.in(0);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.softcap(cap, x + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t self, int32_t dy) {
    g.accumulate(n.src[0], g.add(Op::softcap_back, {g.handle(self), g.handle(dy)}, n.attr));
}

void back_shape(const GraphImpl& g, Node& n) {
    const Node &y = float_source(g, n, 0), &dy = float_source(g, n, 1);
    same_shape(n, y, dy);
    n.shape = y.shape;
}

void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float cap = call.node.attr.get<SoftcapAttr>().cap;
    const float *y = call.in(0), *dy = call.in(1);
    float* dx = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        v.softcap_back(cap, y + first, dy + first, dx + first, last - first);
    });
}

}  // namespace softcap_room

const OpDef softcap_def{.name = "softcap", .shape = softcap_room::shape, .grad = softcap_room::grad, .over = 0b1};
const Kernel softcap_cpu{softcap_room::cpu};
const OpDef softcap_back_def{.name = "softcap_back", .shape = softcap_room::back_shape, .over = 0b11};
const Kernel softcap_back_cpu{softcap_room::back_cpu};

Tensor softcap(Tensor x, float cap) {
    return graph_of({x}, "softcap").add(Op::softcap, {x}, attr_of(SoftcapAttr{cap}));
}

}}  // namespace qlora
