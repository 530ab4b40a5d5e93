// add.cpp - y = a + b of one shape.   da = dy, db = dy.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace add_room {

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
          [&](int64_t first, int64_t last) { v.add(a + first, b + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.handle(dy));
    g.accumulate(n.src[1], g.handle(dy));
}

}  // namespace add_room

const OpDef add_def{.name = "add", .shape = add_room::shape, .grad = add_room::grad};
const Kernel add_cpu{add_room::cpu};

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
