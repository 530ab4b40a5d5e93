// silu.cpp - y = x * s(x) with s(x) = 1 / (1 + exp(-x)), element by element.
//   dx = dy * s * (1 + x * (1 - s))                                           (silu_back)
// This room is the one to copy for a new operation: formula, shape rule, computation, gradient rule, records, builder.
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace silu_room {

void shape(const GraphImpl& g, Node& n) { n.shape = float_source(g, n, 0).shape; }

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float* x = call.in(0);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { v.silu(x + first, y + first, last - first); });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.add(Op::silu_back, {g.handle(n.src[0]), g.handle(dy)}));
}

void back_shape(const GraphImpl& g, Node& n) {
    const Node &x = float_source(g, n, 0), &dy = float_source(g, n, 1);
    same_shape(n, x, dy);
    n.shape = x.shape;
}

void back_cpu(const Call& call) {
    const float *x = call.in(0), *dy = call.in(1);
    float* dx = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const float s = 1 / (1 + std::exp(-x[i]));
            dx[i] = dy[i] * s * (1 + x[i] * (1 - s));
        }
    });
}

}  // namespace silu_room

const OpDef silu_def{.name = "silu", .shape = silu_room::shape, .grad = silu_room::grad, .over = 0b1};
const Kernel silu_cpu{silu_room::cpu};
const OpDef silu_back_def{.name = "silu_back", .shape = silu_room::back_shape, .over = 0b11};
const Kernel silu_back_cpu{silu_room::back_cpu};

Tensor silu(Tensor x) { return graph_of({x}, "silu").add(Op::silu, {x}); }

}}  // namespace qlora
