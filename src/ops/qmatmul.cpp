// qmatmul.cpp - y {rows, out} = x {rows, in} W^T with a stored weight W {out, in}, decoded a panel at a time, never as
// a whole.
//
// The weight is frozen: gradients pass through it to x, dx = dy W, and none ever reaches W itself. That is the Q of
// QLoRA.
#include "src/cpu/gemm.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace qmatmul_room {

// The weight of source 1, whose dimension w_dim must equal dimension 1 of the float matrix in source 0.
const Weight& weight_of(const GraphImpl& g, const Node& node, size_t w_dim) {
    const char* op = op_def(node.op).name;
    const Node &x = float_source(g, node, 0), &w = g.source(node, 1);
    if (w.op != Op::weight || !w.weight)
        fail(Errc::argument, op, ": the second source ", w.shape,
             " is no stored weight; float nodes go through matmul");
    if (x.shape.size() != 2 || w.shape.size() != 2 || x.shape[1] != w.shape[w_dim]) {
        fail(Errc::shape, op, ": ", x.shape, " and weight ", w.weight->name, ' ', w.shape,
             " do not fit: dimension 1 of the first must equal dimension ", w_dim, " of the weight");
    }
    return *w.weight;
}

void shape(const GraphImpl& g, Node& node) {
    const Weight& w = weight_of(g, node, 1);
    node.shape = {g.source(node, 0).shape[0], w.rows()};
}

void forward(const Call& call) {
    const Node& x = call.source(0);
    gemm_nt(cpu_of(call), x.shape[0], call.in(0), x.shape[1], call.matrix(1), call.result(), call.node.shape[1], 1, 0,
            panels_of(call, 1, Pass::forward));
}

void grad(GraphImpl& g, const Node& forward, int32_t, int32_t dy) {
    const auto& src = forward.src;
    if (g.wants_grad(src[0]))
        g.replace_gradient(src[0], g.add(Op::qmatmul_dx, {g.handle(dy), g.handle(src[1]), g.gradient(src[0])}));
}

// sources dy {rows, out}, W {out, in}, perhaps what dx is added to {rows, in}
void dx_shape(const GraphImpl& g, Node& node) {
    const Weight& w = weight_of(g, node, 0);
    node.shape = {g.source(node, 0).shape[0], w.cols()};
    check_base(g, node, 2);
}

void dx(const Call& call) {
    const Node& dy = call.source(0);
    gemm_nn(cpu_of(call), dy.shape[0], call.in(0), dy.shape[1], call.matrix(1), call.result(), call.node.shape[1], 1,
            begin_with_base(call, 2), panels_of(call, 1, Pass::backward));
}

// ---- Several products of one x, as q, k, v or gate and up are, when it has few rows.
std::vector<int32_t> products_of_x(const GraphImpl& g, std::span<const int32_t> run, size_t first) {
    const Node& node = g.node(run[first]);
    if (node.op != Op::qmatmul || node.shape[0] > most_gemv_rows) return {};
    std::vector<int32_t> group = neighbours(g, run, first, 0, size_t(most_gemvs));
    const auto few = [&](int32_t id) {
        return node.shape[0] <= g.backend->rows_alike(g.source(g.node(id), 1).weight->ref());
    };
    return std::all_of(group.begin(), group.end(), few) ? group : std::vector<int32_t>{};
}

void forward_of_x(std::span<const Call> calls) {
    Gemv products[most_gemvs];
    const Shape& x = calls[0].source(0).shape;
    for (size_t i = 0; i < calls.size(); ++i)
        products[i] = {calls[i].matrix(1), calls[i].in(0), x[1], calls[i].result(), calls[i].node.shape[1]};
    gemv(cpu_of(calls[0]), x[0], std::span(products, calls.size()));
}

}  // namespace qmatmul_room

const OpDef qmatmul_def{.name = "qmatmul", .shape = qmatmul_room::shape, .grad = qmatmul_room::grad};
const Kernel qmatmul_cpu{qmatmul_room::forward};
const OpDef qmatmul_dx_def{.name = "qmatmul_dx", .shape = qmatmul_room::dx_shape, .over = 0b100};
const Kernel qmatmul_dx_cpu{qmatmul_room::dx};
const Fusion qmatmuls_cpu{"products of one x", qmatmul_room::products_of_x, qmatmul_room::forward_of_x};

}}  // namespace qlora
