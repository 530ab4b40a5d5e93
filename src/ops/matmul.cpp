// matmul.cpp - y {rows, out} = x {rows, in} W^T with a float W {out, in} of the graph, and both gradients:
//     dx {rows, in} = dy W          dW {out, in} = dy^T x
// The public builder also takes stored weights and sends them to qmatmul.
#include "src/cpu/gemm.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace matmul_room {

// Both sources must be float matrices that agree in the dimensions named.
void check(const GraphImpl& g, const Node& node, int dim_a, int dim_b) {
    const Node &a = float_source(g, node, 0), &b = float_source(g, node, 1);
    if (a.shape.size() != 2 || b.shape.size() != 2 || a.shape[size_t(dim_a)] != b.shape[size_t(dim_b)]) {
        fail(Errc::shape, op_def(node.op).name, ": ", a.shape, " and ", b.shape, " do not fit: dimension ",
             dim_a, " of the first must equal dimension ", dim_b, " of the second");
    }
}

void shape(const GraphImpl& g, Node& node) {
    check(g, node, 1, 1);
    node.shape = {g.source(node, 0).shape[0], g.source(node, 1).shape[0]};
}

void forward(const Call& call) {
    const Node& x = call.source(0);
    gemm_nt(cpu_of(call), x.shape[0], call.in(0), x.shape[1], call.matrix(1), call.result(), call.node.shape[1]);
}

void grad(GraphImpl& g, const Node& forward, int32_t, int32_t dy) {
    const auto& src = forward.src;
    if (g.wants_grad(src[0])) g.accumulate(src[0], g.add(Op::matmul_dx, {g.handle(dy), g.handle(src[1])}));
    if (g.wants_grad(src[1])) g.accumulate(src[1], g.add(Op::matmul_dw, {g.handle(dy), g.handle(src[0])}));
}

void dx_shape(const GraphImpl& g, Node& node) {        // sources dy {rows, out}, W {out, in}
    check(g, node, 1, 0);
    node.shape = {g.source(node, 0).shape[0], g.source(node, 1).shape[1]};
}

void dx(const Call& call) {
    const Node& dy = call.source(0);
    gemm_nn(cpu_of(call), dy.shape[0], call.in(0), dy.shape[1], call.matrix(1), call.result(), call.node.shape[1]);
}

void dw_shape(const GraphImpl& g, Node& node) {        // sources dy {rows, out}, x {rows, in}
    check(g, node, 0, 0);
    node.shape = {g.source(node, 0).shape[1], g.source(node, 1).shape[1]};
}

void dw(const Call& call) {
    const int64_t out = call.node.shape[0], in = call.node.shape[1];
    gemm_tn(cpu_of(call), call.source(0).shape[0], out, in, call.in(0), out, call.in(1), in, call.result(), in);
}

}  // namespace matmul_room

const OpDef matmul_def{.name = "matmul", .shape = matmul_room::shape, .grad = matmul_room::grad};
const Kernel matmul_cpu{matmul_room::forward};
const OpDef matmul_dx_def{.name = "matmul_dx", .shape = matmul_room::dx_shape};
const Kernel matmul_dx_cpu{matmul_room::dx};
const OpDef matmul_dw_def{.name = "matmul_dw", .shape = matmul_room::dw_shape};
const Kernel matmul_dw_cpu{matmul_room::dw};

Tensor matmul(Tensor x, Tensor w) {
    GraphImpl& g = graph_of({x, w}, "matmul");
    return g.add(g.node(w.id()).op == Op::weight ? Op::qmatmul : Op::matmul, {x, w});
}

}}  // namespace qlora
