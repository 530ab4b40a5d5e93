// adamw.cpp - one step of AdamW (arXiv:1711.05101) in place, as PyTorch computes it. With g' = factor * clip * g:
//   p -= lr * weight_decay * p
//   m += (1 - beta1) * (g' - m),   v = beta2 * v + (1 - beta2) * g'^2
//   p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
// clip = min(1, max_norm / (norm * factor + 1e-6)). Sources: p, g, m, v, norm {1} or none, hyper {4} = {lr, t, factor,
// 0}. The result is p.
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace adamw_room {

void shape(const GraphImpl& g, Node& n) {
    const AdamWAttr a = n.attr.get<AdamWAttr>();
    if (!(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1 && a.epsilon >= 0 && a.weight_decay >= 0 &&
          a.max_norm >= 0))
        fail(Errc::argument, "adamw: beta1 ", a.beta1, ", beta2 ", a.beta2, ", epsilon ", a.epsilon, ", weight_decay ",
             a.weight_decay, ", max_norm ", a.max_norm, "; expected betas from 0 to below 1 and the others at least 0");
    const Node& p = updated_floats(g, n, 0);
    for (const int i : {1, 2, 3}) {
        const Node& s = i == 1 ? float_source(g, n, i) : updated_floats(g, n, i);
        if (s.elements() != p.elements())
            fail(Errc::shape, "adamw: param ", p.shape, " with source ", i, " of shape ", s.shape);
    }
    if (n.src[4] >= 0 && float_source(g, n, 4).elements() != 1)
        fail(Errc::shape, "adamw: a norm of shape ", g.source(n, 4).shape, ", expected [1]");
    if (float_source(g, n, 5).elements() != 4)
        fail(Errc::shape, "adamw: hyper of shape ", g.source(n, 5).shape, ", expected [4]");
    n.shape = p.shape;
}

void cpu(const Call& call) {
    const AdamWAttr a = call.node.attr.get<AdamWAttr>();
    const float *g = call.in(1), *hyper = call.in(5), lr = hyper[0], given = hyper[2];
    float *p = call.result(), *m = call.written(2), *v = call.written(3);
    const float clip = call.has(4) && a.max_norm > 0 ? std::min(1.0f, a.max_norm / (*call.in(4) * given + 1e-6f))
                                                     : 1.0f;
    const double t = double(hyper[1]), correction1 = 1 - std::pow(double(a.beta1), t),
                 correction2 = 1 - std::pow(double(a.beta2), t);
    const float factor = given * clip, step = float(double(lr) / correction1), root = float(std::sqrt(correction2)),
                keep = float(1 - double(lr) * double(a.weight_decay));
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const float gi = g[i] * factor;
            m[i] += (gi - m[i]) * (1 - a.beta1);
            v[i] = v[i] * a.beta2 + gi * gi * (1 - a.beta2);
            p[i] = p[i] * keep - step * m[i] / (std::sqrt(v[i]) / root + a.epsilon);
        }
    });
}

}  // namespace adamw_room

const OpDef adamw_def{.name = "adamw",
                      .shape = adamw_room::shape,
                      .cpu = adamw_room::cpu,
                      .grad = nullptr,
                      .aliases = 0,
                      .effect = true,
                      .writes = 1 << 2 | 1 << 3};

Tensor adamw(Tensor p, Tensor g, Tensor m, Tensor v, Tensor norm, Tensor hyper, const AdamWAttr& a) {
    return graph_of({p, g, m, v, hyper}, "adamw").add(Op::adamw, {p, g, m, v, norm, hyper}, attr_of(a));
}

}}  // namespace qlora
