// bias.cpp - y = x + b, x {..., n}, b {n} added to every row.   dx = dy, db = sum of dy over the rows (bias_back).
// b may be a stored weight of any type; then it has no gradient.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace bias_room {

void shape(const GraphImpl& g, Node& n) {
    const Node &x = float_source(g, n, 0), &b = weight_source(g, n, 1);
    if (b.elements() != last_dim(x))
        fail(Errc::shape, "bias: shape ", b.shape, " added to the rows of ", x.shape, ", expected [", last_dim(x), "]");
    n.shape = x.shape;
}

int64_t scratch(const GraphImpl& g, const Node& n) { return decoded_bytes(g.source(n, 1)); }

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t n = last_dim(call.node), rows = leading(call.node);
    const float *x = call.in(0), *b = decoded_source(call, 1, static_cast<float*>(call.scratch));
    float* y = call.result();
    split(call, rows, n, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) v.add(x + r * n, b, y + r * n, n);
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.handle(dy));
    if (g.wants_grad(n.src[1])) g.accumulate(n.src[1], g.add(Op::bias_back, {g.handle(dy)}));
}

void back_shape(const GraphImpl& g, Node& n) { n.shape = {last_dim(float_source(g, n, 0))}; }

// Columns are split between tasks, rows are added in order: 16 columns, a cache line, are the unit.
void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t n = last_dim(call.source(0)), rows = leading(call.source(0));
    const float* dy = call.in(0);
    float* db = call.result();
    split(call, (n + 15) / 16, 16 * rows, [&](int64_t first, int64_t last) {
        const int64_t begin = first * 16, width = std::min(n, last * 16) - begin;
        std::fill(db + begin, db + begin + width, 0.0f);
        for (int64_t r = 0; r < rows; ++r) v.add(db + begin, dy + r * n + begin, db + begin, width);
    });
}

}  // namespace bias_room

const OpDef bias_def{.name = "bias", .shape = bias_room::shape, .grad = bias_room::grad, .over = 0b1};
const Kernel bias_cpu{bias_room::cpu, bias_room::scratch};
const OpDef bias_back_def{.name = "bias_back", .shape = bias_room::back_shape};
const Kernel bias_back_cpu{bias_room::back_cpu};

Tensor bias(Tensor x, Tensor b) { return graph_of({x, b}, "bias").add(Op::bias, {x, b}); }

}}  // namespace qlora
