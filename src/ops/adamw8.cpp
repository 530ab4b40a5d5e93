// adamw8.cpp - one step of AdamW in place with both moments in 8 bits (arXiv:2110.02861): blocks of 256 elements, a
// scale a block, codes of bitsandbytes' dynamic maps. The step itself is that of adamw.cpp, in floats:
//   m = map1[code1] * scale1,  v = map2[code2] * scale2,  the step,  scale = max |m|,  code = nearest(m / scale),
// and so for v. The params move by the new moments before these are rounded. Sources: p, g, code1, code2 u8 {count},
// scale1, scale2 {blocks}, norm {1} or none, hyper {4} = {lr, t, factor, 0}. The result is p.
#include "src/ops/adamw.h"
#include "src/tensor/nf4.h"

namespace qlora { inline namespace QLORA_ABI {
namespace adamw8_room {

void shape(const GraphImpl& g, Node& n) {
    const Node& p = adamw_sources(g, n, 6, 7);
    for (const int i : {2, 3}) {
        const Node& codes = n.src[size_t(i)] < 0 ? n : g.source(n, i);
        if (codes.op != Op::state || codes.dtype != DType::u8)
            fail(Errc::argument, "adamw8: source ", i, " must be a state of type u8");
        if (codes.elements() != p.elements())
            fail(Errc::shape, "adamw8: param ", p.shape, " with source ", i, " of shape ", codes.shape);
    }
    for (const int i : {4, 5}) {
        const Node& scales = updated_floats(g, n, i);
        if (scales.elements() != adamw8_blocks(p.elements()))
            fail(Errc::shape, "adamw8: param ", p.shape, " with source ", i, " of shape ", scales.shape, ", expected [",
                 adamw8_blocks(p.elements()), "]");
    }
    n.shape = p.shape;
}

void update_block(const AdamWStep& s, int64_t n, float* p, const float* g, uint8_t* code1, uint8_t* code2,
                  float& scale1, float& scale2) {
    const float *map1 = dynamic_map_signed(), *map2 = dynamic_map_unsigned();
    float m[adamw8_block], v[adamw8_block], max1 = 0, max2 = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float gi = g[i] * s.factor;
        m[i] = map1[code1[i]] * scale1;
        v[i] = map2[code2[i]] * scale2;
        m[i] += (gi - m[i]) * (1 - s.beta1);
        v[i] = v[i] * s.beta2 + gi * gi * (1 - s.beta2);
        p[i] = p[i] * s.keep - s.rate * m[i] / (std::sqrt(v[i]) / s.root + s.epsilon);
        max1 = std::max(max1, std::fabs(m[i]));
        max2 = std::max(max2, v[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
        code1[i] = dynamic_code(map1, max1 > 0 ? m[i] / max1 : 0);
        code2[i] = dynamic_code(map2, max2 > 0 ? v[i] / max2 : 0);
    }
    scale1 = max1;
    scale2 = max2;
}

void cpu(const Call& call) {
    const AdamWStep s = adamw_step(call, 6, 7);
    const int64_t count = call.node.elements();
    const float* g = call.in(1);
    float *p = call.result(), *scale1 = call.written(4), *scale2 = call.written(5);
    uint8_t *code1 = call.written<uint8_t>(2), *code2 = call.written<uint8_t>(3);
    split(call, adamw8_blocks(count), adamw8_block, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            const int64_t at = b * adamw8_block, n = std::min(adamw8_block, count - at);
            update_block(s, n, p + at, g + at, code1 + at, code2 + at, scale1[b], scale2[b]);
        }
    });
}

}  // namespace adamw8_room

const OpDef adamw8_def{.name = "adamw8", .shape = adamw8_room::shape, .aliases = 0, .effect = true,
                       .writes = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5};
const Kernel adamw8_cpu{adamw8_room::cpu};

Tensor adamw8(Tensor p, Tensor g, const std::array<Tensor, 2>& codes, const std::array<Tensor, 2>& scales, Tensor norm,
              Tensor hyper, const AdamWAttr& a) {
    return graph_of({p, g, codes[0], codes[1], scales[0], scales[1], hyper}, "adamw8")
        .add(Op::adamw8, {p, g, codes[0], codes[1], scales[0], scales[1], norm, hyper}, attr_of(a));
}

}}  // namespace qlora
