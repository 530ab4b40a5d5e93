// mul.cpp - y = a * b, element by element, of one shape.   da = dy * b, db = dy * a.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace mul_room {

void shape(const GraphImpl& g, Node& n) {
    const Node &a = float_source(g, n, 0), &b = float_source(g, n, 1);
    same_shape(n, a, b);
    n.shape = a.shape;
}

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float *a = call.in(0), *b = call.in(1);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.mul(a + first, b + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    if (g.wants_grad(n.src[0])) g.accumulate(n.src[0], mul(g.handle(dy), g.handle(n.src[1])));
    if (g.wants_grad(n.src[1])) g.accumulate(n.src[1], mul(g.handle(dy), g.handle(n.src[0])));
}

}  // namespace mul_room

const OpDef mul_def{.name = "mul", .shape = mul_room::shape, .grad = mul_room::grad};
const Kernel mul_cpu{mul_room::cpu};

Tensor mul(Tensor a, Tensor b) { return graph_of({a, b}, "mul").add(Op::mul, {a, b}); }

Tensor operator*(Tensor a, Tensor b) { return mul(a, b); }

}}  // namespace qlora
