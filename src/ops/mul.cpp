// mul.cpp - y = a * b, element by element, of one shape.   da = dy * b, db = dy * a.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace mul_room {

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    if (g.wants_grad(n.src[0])) g.accumulate(n.src[0], mul(g.handle(dy), g.handle(n.src[1])));
    if (g.wants_grad(n.src[1])) g.accumulate(n.src[1], mul(g.handle(dy), g.handle(n.src[0])));
}

}  // namespace mul_room

const OpDef mul_def{.name = "mul", .shape = pair_shape, .grad = mul_room::grad, .over = 0b11};
const Kernel mul_cpu{pair_cpu<&Vec::mul>};

Tensor mul(Tensor a, Tensor b) { return graph_of({a, b}, "mul").add(Op::mul, {a, b}); }

Tensor operator*(Tensor a, Tensor b) { return mul(a, b); }

}}  // namespace qlora
