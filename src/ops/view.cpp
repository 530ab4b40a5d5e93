// view.cpp - the same memory under another shape: y = x[offset, offset + elements of y). Costs nothing and runs
// nothing. dx is dy for a view of everything; a view of a part has no gradient (nothing that trains cuts its
// activations).
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace view_room {

void shape(const GraphImpl& g, Node& n) {
    if (n.src[0] < 0) fail(Errc::argument, "view: source 0 is missing");
    const Node& x = g.source(n, 0);
    if (x.op == Op::weight) fail(Errc::argument, "view: ", x.weight->name, " is a stored weight and keeps its shape");
    if (bytes_of(x.dtype, 1) != 4) fail(Errc::argument, "view: a state of ", name_of(x.dtype), " keeps its shape");
    if (n.shape.empty()) fail(Errc::shape, "view: the result needs at least one dimension");
    const int64_t offset = n.attr.get<ViewAttr>().offset, count = n.elements();
    if (offset < 0 || count < 1 || offset > x.elements() + x.saved - count)
        fail(Errc::shape, "view: ", n.shape, " from element ", offset, " does not fit into ", x.shape);
    // gradient rules may cut, also from what is saved behind a result
    if (count != x.elements() && g.grads.empty() && g.wants_grad(n.src[0]))
        fail(Errc::unsupported, "view: a part ", n.shape, " of ", x.shape, " has no gradient; view all of it");
    n.dtype = x.dtype;
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], reshape(g.handle(dy), g.source(n, 0).shape));
}

}  // namespace view_room

const OpDef view_def{.name = "view", .shape = view_room::shape, .grad = view_room::grad, .aliases = 0,
                     .computes = false};

Tensor view(Tensor x, int64_t offset, Shape shape) {
    return graph_of({x}, "view").add(Op::view, {x}, attr_of(ViewAttr{offset}), std::move(shape));
}

Tensor reshape(Tensor x, Shape shape) {
    const GraphImpl& g = graph_of({x}, "reshape");
    if (elements_of(shape) != g.node(x.id()).elements())
        fail(Errc::shape, "reshape: ", g.node(x.id()).shape, " does not have as many elements as ", shape);
    return view(x, 0, std::move(shape));
}

}}  // namespace qlora
