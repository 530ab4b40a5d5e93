// rms_norm.cpp - y = x * r * w by rows of n, r = 1 / sqrt(mean(x^2) + eps); x {..., n}, w {n} (Zhang and Sennrich,
// 2019).
//   dx = r * (w * dy) - r^3 / n * x * sum(x * w * dy)                           (rms_norm_back)
//   dw = sum over rows of dy * x * r                                            (rms_norm_dw)
// r is computed again from x in the backward pass: one sum of squares a row costs less than keeping it.
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace rms_norm_room {

void check(const GraphImpl& g, const Node& n) {
    const Node &x = float_source(g, n, 0), &w = weight_source(g, n, 1);
    if (w.elements() != last_dim(x))
        fail(Errc::shape, op_def(n.op).name, ": a weight of shape ", w.shape, " for rows of ", x.shape, ", expected [",
             last_dim(x), "]");
}

float inverse_rms(const Vec& v, const float* x, int64_t n, float eps) {
    return 1 / std::sqrt(v.dot(x, x, n) / float(n) + eps);
}

void shape(const GraphImpl& g, Node& n) {
    check(g, n);
    n.shape = g.source(n, 0).shape;
}

int64_t scratch(const GraphImpl& g, const Node& n) { return decoded_bytes(g.source(n, 1)); }

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float eps = call.node.attr.get<RmsNormAttr>().eps;
    const int64_t n = last_dim(call.node);
    const float *x = call.in(0), *w = decoded_source(call, 1, static_cast<float*>(call.scratch));
    float* y = call.result();
    split(call, leading(call.node), n, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            const float* xr = x + row * n;
            float* yr = y + row * n;
            v.scale(inverse_rms(v, xr, n, eps), xr, yr, n);
            v.mul(yr, w, yr, n);
        }
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    const Tensor x = g.handle(n.src[0]), w = g.handle(n.src[1]);
    if (g.wants_grad(n.src[0])) g.accumulate(n.src[0], g.add(Op::rms_norm_back, {x, w, g.handle(dy)}, n.attr));
    if (g.wants_grad(n.src[1])) g.accumulate(n.src[1], g.add(Op::rms_norm_dw, {x, g.handle(dy)}, n.attr));
}

void back_shape(const GraphImpl& g, Node& n) {
    check(g, n);
    same_shape(n, g.source(n, 0), float_source(g, n, 2));
    n.shape = g.source(n, 0).shape;
}

void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float eps = call.node.attr.get<RmsNormAttr>().eps;
    const int64_t n = last_dim(call.node);
    const float *x = call.in(0), *w = decoded_source(call, 1, static_cast<float*>(call.scratch)), *dy = call.in(2);
    float* dx = call.result();
    split(call, leading(call.node), n, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            const float* xr = x + row * n;
            float* out = dx + row * n;
            const float r = inverse_rms(v, xr, n, eps);
            v.mul(w, dy + row * n, out, n);
            const float along = v.dot(out, xr, n);
            v.scale(r, out, out, n);
            v.axpy(-r * r * r / float(n) * along, xr, out, n);
        }
    });
}

void dw_shape(const GraphImpl& g, Node& n) {
    same_shape(n, float_source(g, n, 0), float_source(g, n, 1));
    n.shape = {last_dim(g.source(n, 0))};
}

int64_t dw_scratch(const GraphImpl& g, const Node& n) { return leading(g.source(n, 0)) * 4; }

// First r of every row, then columns in tasks (16, a cache line, the unit) with the rows added in order.
void dw_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float eps = call.node.attr.get<RmsNormAttr>().eps;
    const int64_t n = last_dim(call.node), rows = leading(call.source(0));
    const float *x = call.in(0), *dy = call.in(1);
    float *dw = call.result(), *r = static_cast<float*>(call.scratch);           // r [rows]
    split(call, rows, n, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) r[row] = inverse_rms(v, x + row * n, n, eps);
    });
    split(call, (n + 15) / 16, 16 * rows, [&](int64_t first, int64_t last) {
        const int64_t begin = first * 16, end = std::min(n, last * 16);
        std::fill(dw + begin, dw + end, 0.0f);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t c = begin; c < end; ++c) dw[c] += dy[row * n + c] * x[row * n + c] * r[row];
        }
    });
}

}  // namespace rms_norm_room

const OpDef rms_norm_def{.name = "rms_norm", .shape = rms_norm_room::shape, .grad = rms_norm_room::grad};
const Kernel rms_norm_cpu{rms_norm_room::cpu, rms_norm_room::scratch};
const OpDef rms_norm_back_def{.name = "rms_norm_back", .shape = rms_norm_room::back_shape};
const Kernel rms_norm_back_cpu{rms_norm_room::back_cpu, rms_norm_room::scratch};
const OpDef rms_norm_dw_def{.name = "rms_norm_dw", .shape = rms_norm_room::dw_shape};
const Kernel rms_norm_dw_cpu{rms_norm_room::dw_cpu, rms_norm_room::dw_scratch};

Tensor rms_norm(Tensor x, Tensor w, float eps) {
    return graph_of({x, w}, "rms_norm").add(Op::rms_norm, {x, w}, attr_of(RmsNormAttr{eps}));
}

}}  // namespace qlora
