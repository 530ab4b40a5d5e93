// adamw.h - what both rooms of AdamW share: the checks of what they are fed, and the numbers of one step.
#pragma once
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {

// Sources 0 (updated) and 1 are params and gradients; norm {1} may be absent; hyper {4} = {lr, t, factor, 0}. Returns
// the params.
inline const Node& adamw_sources(const GraphImpl& g, const Node& n, int norm, int hyper) {
    const char* name = op_def(n.op).name;
    const AdamWAttr a = n.attr.get<AdamWAttr>();
    if (!(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1 && a.epsilon >= 0 && a.weight_decay >= 0 &&
          a.max_norm >= 0))
        fail(Errc::argument, name, ": beta1 ", a.beta1, ", beta2 ", a.beta2, ", epsilon ", a.epsilon,
             ", weight_decay ", a.weight_decay, ", max_norm ", a.max_norm,
             "; expected betas from 0 to below 1 and the others at least 0");
    const Node &p = updated_floats(g, n, 0), &gradient = float_source(g, n, 1);
    if (gradient.elements() != p.elements())
        fail(Errc::shape, name, ": param ", p.shape, " with source 1 of shape ", gradient.shape);
    if (n.src[size_t(norm)] >= 0 && float_source(g, n, norm).elements() != 1)
        fail(Errc::shape, name, ": a norm of shape ", g.source(n, norm).shape, ", expected [1]");
    if (float_source(g, n, hyper).elements() != 4)
        fail(Errc::shape, name, ": hyper of shape ", g.source(n, hyper).shape, ", expected [4]");
    return p;
}

struct AdamWStep { float rate, root, keep, factor, beta1, beta2, epsilon; };

inline AdamWStep adamw_step(const Call& call, int norm, int hyper) {
    const AdamWAttr a = call.node.attr.get<AdamWAttr>();
    const float *h = call.in(hyper), given = h[2];
    const double lr = double(h[0]), t = double(h[1]), correction1 = 1 - std::pow(double(a.beta1), t),
                 correction2 = 1 - std::pow(double(a.beta2), t);
    const bool clips = call.has(norm) && a.max_norm > 0;
    const float clip = clips ? std::min(1.0f, a.max_norm / (*call.in(norm) * given + 1e-6f)) : 1.0f;
    return {float(lr / correction1), float(std::sqrt(correction2)), float(1 - lr * double(a.weight_decay)),
            given * clip,            a.beta1,                       a.beta2,
            a.epsilon};
}

}}  // namespace qlora
