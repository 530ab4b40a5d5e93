// add.cpp - y = a + b of one shape.   da = dy, db = dy.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace add_room {

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.handle(dy));
    g.accumulate(n.src[1], g.handle(dy));
}

}  // namespace add_room

const OpDef add_def{.name = "add", .shape = pair_shape, .grad = add_room::grad, .over = 0b11};
const Kernel add_cpu{pair_cpu<&Vec::add>};

Tensor add(Tensor a, Tensor b) { return graph_of({a, b}, "add").add(Op::add, {a, b}); }

// A row of b for every row of a, or element by element.
Tensor operator+(Tensor a, Tensor b) {
    const GraphImpl& g = graph_of({a, b}, "add");
    const Node &na = g.node(a.id()), &nb = g.node(b.id());
    if (na.shape == nb.shape && nb.op != Op::weight) return add(a, b);
    if (nb.shape.size() == 1 && !na.shape.empty() && na.shape.back() == nb.shape[0]) return bias(a, b);
    fail(Errc::shape, "add: shapes ", na.shape, " and ", nb.shape, "; expected the same, or [n] added to [..., n]");
}

}}  // namespace qlora
