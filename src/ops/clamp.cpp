// clamp.cpp - y = min(max(x, low), high), element by element; NaN stays.
//   dx = dy where low <= x <= high, 0 elsewhere                                 (clamp_back)
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace clamp_room {

void shape(const GraphImpl& g, Node& n) {
    const ClampAttr a = n.attr.get<ClampAttr>();
    if (!(a.low <= a.high))
        fail(Errc::argument, "clamp: the bounds ", a.low, " and ", a.high, ", expected the lower one first");
    n.shape = float_source(g, n, 0).shape;
}

void cpu(const Call& call) {
    const ClampAttr a = call.node.attr.get<ClampAttr>();
    const float* x = call.in(0);
    float* y = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) y[i] = x[i] < a.low ? a.low : x[i] > a.high ? a.high : x[i];
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.add(Op::clamp_back, {g.handle(n.src[0]), g.handle(dy)}, n.attr));
}

void back_cpu(const Call& call) {
    const ClampAttr a = call.node.attr.get<ClampAttr>();
    const float *x = call.in(0), *dy = call.in(1);
    float* dx = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) dx[i] = a.low <= x[i] && x[i] <= a.high ? dy[i] : 0;
    });
}

}  // namespace clamp_room

const OpDef clamp_def{.name = "clamp", .shape = clamp_room::shape, .grad = clamp_room::grad, .over = 0b1};
const Kernel clamp_cpu{clamp_room::cpu};
const OpDef clamp_back_def{.name = "clamp_back", .shape = pair_shape, .over = 0b11};
const Kernel clamp_back_cpu{clamp_room::back_cpu};

Tensor clamp(Tensor x, float low, float high) {
    return graph_of({x}, "clamp").add(Op::clamp, {x}, attr_of(ClampAttr{low, high}));
}

}}  // namespace qlora
