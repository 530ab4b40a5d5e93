// scale.cpp - y = factor * x, and y = s[row] * x for x {..., n}.   dx = factor * dy, dx = s[row] * dy.
// The row factors are masks and weights of rows: no gradient flows to them.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace scale_room {

void shape(const GraphImpl& g, Node& n) { n.shape = float_source(g, n, 0).shape; }

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float factor = call.node.attr.get<ScaleAttr>().factor;
    const float* x = call.in(0);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.scale(factor, x + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], scale(g.handle(dy), n.attr.get<ScaleAttr>().factor));
}

void rows_shape(const GraphImpl& g, Node& n) {
    const Node &x = float_source(g, n, 0), &s = float_source(g, n, 1);
    if (s.elements() != leading(x))
        fail(Errc::shape, "scale_rows: factors of shape ", s.shape, " for the rows of ", x.shape, ", expected [",
             leading(x), "]");
    if (g.wants_grad(n.src[1]))
        fail(Errc::unsupported, "scale_rows: no gradient flows to the factors of shape ", s.shape,
             "; they must not depend on a param");
    n.shape = x.shape;
}

void rows_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t n = last_dim(call.node);
    const float *x = call.in(0), *s = call.in(1);
    float* y = call.result();
    split(call, leading(call.node), n, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) v.scale(s[r], x + r * n, y + r * n, n);
    });
}

void rows_grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], scale_rows(g.handle(dy), g.handle(n.src[1])));
}

}  // namespace scale_room

const OpDef scale_def{.name = "scale", .shape = scale_room::shape, .grad = scale_room::grad, .over = 0b1};
const Kernel scale_cpu{scale_room::cpu};
const OpDef scale_rows_def{.name = "scale_rows", .shape = scale_room::rows_shape, .grad = scale_room::rows_grad,
                           .over = 0b1};
const Kernel scale_rows_cpu{scale_room::rows_cpu};

Tensor scale(Tensor x, float factor) { return graph_of({x}, "scale").add(Op::scale, {x}, attr_of(ScaleAttr{factor})); }

Tensor scale_rows(Tensor x, Tensor s) { return graph_of({x, s}, "scale_rows").add(Op::scale_rows, {x, s}); }

Tensor operator*(Tensor x, float factor) { return scale(x, factor); }

}}  // namespace qlora
