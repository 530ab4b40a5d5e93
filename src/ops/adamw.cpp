// adamw.cpp - one step of AdamW (arXiv:1711.05101) in place, as PyTorch computes it. With g' = factor * clip * g:
//   p -= lr * weight_decay * p
//   m += (1 - beta1) * (g' - m),   v = beta2 * v + (1 - beta2) * g'^2
//   p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
// clip = min(1, max_norm / (norm * factor + 1e-6)). Sources: p, g, m, v, norm {1} or none, hyper {4} = {lr, t, factor,
// 0}. The result is p.
#include "src/ops/adamw.h"

namespace qlora { inline namespace QLORA_ABI {
namespace adamw_room {

void shape(const GraphImpl& g, Node& n) {
    const Node& p = adamw_sources(g, n, 4, 5);
    for (const int i : {2, 3}) {
        const Node& s = updated_floats(g, n, i);
        if (s.elements() != p.elements())
            fail(Errc::shape, "adamw: param ", p.shape, " with source ", i, " of shape ", s.shape);
    }
    n.shape = p.shape;
}

void cpu(const Call& call) {
    const AdamWStep s = adamw_step(call, 4, 5);
    const float* g = call.in(1);
    float *p = call.result(), *m = call.written(2), *v = call.written(3);
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const float gi = g[i] * s.factor;
            m[i] += (gi - m[i]) * (1 - s.beta1);
            v[i] = v[i] * s.beta2 + gi * gi * (1 - s.beta2);
            p[i] = p[i] * s.keep - s.rate * m[i] / (std::sqrt(v[i]) / s.root + s.epsilon);
        }
    });
}

}  // namespace adamw_room

const OpDef adamw_def{.name = "adamw", .shape = adamw_room::shape, .aliases = 0, .effect = true,
                      .writes = 1 << 2 | 1 << 3};
const Kernel adamw_cpu{adamw_room::cpu};

Tensor adamw(Tensor p, Tensor g, Tensor m, Tensor v, Tensor norm, Tensor hyper, const AdamWAttr& a) {
    return graph_of({p, g, m, v, hyper}, "adamw").add(Op::adamw, {p, g, m, v, norm, hyper}, attr_of(a));
}

}}  // namespace qlora
