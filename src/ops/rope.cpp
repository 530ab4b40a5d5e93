// rope.cpp - rotary position embedding (arXiv:2104.09864): x {rows, heads * head_dim}; in each head the pair (a, b)
// number i < rotated / 2 turns:
//   a' = magnitude * (a cos t - b sin t),  b' = magnitude * (b cos t + a sin t),
//   t = positions[row] * inverse_frequencies[i]
// Pairs are (i, i + rotated / 2), or (2i, 2i + 1) when adjacent; the rest of a head passes. Whatever a scaling scheme
// does to the frequencies is already in inverse_frequencies. Where there is a `period`, all of a head is then
// multiplied by 1 + growth ln(1 + floor(position / period)). The derivative is the transposed matrix: the same turn
// backwards (`inverse`), by the same factors.
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace rope_room {

void shape(const GraphImpl& g, Node& n) {
    const RopeAttr a = n.attr.get<RopeAttr>();
    const Node &x = float_source(g, n, 0), &f = float_source(g, n, 2);
    if (a.head_dim < 1 || a.rotated < 2 || a.rotated % 2 || a.rotated > a.head_dim)
        fail(Errc::argument, "rope: ", a.rotated, " rotated dimensions of a head of ", a.head_dim,
             ", expected an even number from 2 to the head's size");
    if (last_dim(x) % a.head_dim) fail(Errc::shape, "rope: rows of ", x.shape, " are not whole heads of ", a.head_dim);
    if (a.period < 0) fail(Errc::argument, "rope: a period of ", a.period, " positions, expected at least 1, or 0");
    index_source(g, n, 1, leading(x));
    if (f.elements() != a.rotated / 2)
        fail(Errc::shape, "rope: inverse frequencies of shape ", f.shape, ", expected [", a.rotated / 2, "]");
    n.shape = x.shape;
}

int64_t scratch(const GraphImpl&, const Node& n) { return leading(n) * n.attr.get<RopeAttr>().rotated * 4; }

float grown(const RopeAttr& a, int32_t position) {
    return a.period > 0 ? 1 + a.growth * std::log(float(1 + position / a.period)) : 1;
}

// One head: pair i lies at x[i * step] and x[i * step + apart].
void turn(const float* x, float* y, const float* cosine, const float* sine, int64_t pairs, int64_t step,
          int64_t apart) {
    for (int64_t i = 0; i < pairs; ++i) {
        const float a = x[i * step], b = x[i * step + apart];
        y[i * step] = a * cosine[i] - b * sine[i];
        y[i * step + apart] = b * cosine[i] + a * sine[i];
    }
}

void cpu(const Call& call) {
    const RopeAttr a = call.node.attr.get<RopeAttr>();
    const int64_t n = last_dim(call.node), pairs = a.rotated / 2;
    const float *x = call.in(0), *frequency = call.in(2);
    const int32_t* position = call.in<int32_t>(1);
    // table {rows, 2, pairs}: cosines, sines, shared by the heads
    float *y = call.result(), *table = static_cast<float*>(call.scratch);
    split(call, leading(call.node), n, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            float *cosine = table + row * a.rotated, *sine = cosine + pairs;
            const float passing = grown(a, position[row]), magnitude = a.magnitude * passing;
            for (int64_t i = 0; i < pairs; ++i) {
                const float t = float(position[row]) * frequency[i];
                cosine[i] = std::cos(t) * magnitude;
                sine[i] = std::sin(t) * (a.inverse ? -magnitude : magnitude);
            }
            for (int64_t head = row * n; head < (row + 1) * n; head += a.head_dim) {
                if (a.adjacent) turn(x + head, y + head, cosine, sine, pairs, 2, 1);
                else turn(x + head, y + head, cosine, sine, pairs, 1, pairs);
                for (int64_t i = head + a.rotated; i < head + a.head_dim; ++i) y[i] = x[i] * passing;
            }
        }
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    RopeAttr a = n.attr.get<RopeAttr>();
    a.inverse = !a.inverse;
    g.accumulate(n.src[0], rope(g.handle(dy), g.handle(n.src[1]), g.handle(n.src[2]), a));
}

}  // namespace rope_room

const OpDef rope_def{.name = "rope", .shape = rope_room::shape, .grad = rope_room::grad};
const Kernel rope_cpu{rope_room::cpu, rope_room::scratch};

Tensor rope(Tensor x, Tensor positions, Tensor inverse_frequencies, const RopeAttr& a) {
    return graph_of({x, positions, inverse_frequencies}, "rope")
        .add(Op::rope, {x, positions, inverse_frequencies}, attr_of(a));
}

Tensor rope(Tensor x, Tensor positions, int64_t heads, float theta) {
    GraphImpl& g = graph_of({x, positions}, "rope");
    const Shape& shape = g.node(x.id()).shape;
    if (heads < 1 || shape.back() % (2 * heads))
        fail(Errc::shape, "rope: ", heads, " heads of an even size do not fit into rows of ", shape);
    const int64_t head_dim = shape.back() / heads;
    std::vector<float> inverse(size_t(head_dim / 2));
    for (size_t i = 0; i < inverse.size(); ++i)
        inverse[i] = float(std::pow(double(theta), -2.0 * double(i) / double(head_dim)));
    const Tensor frequencies = g.input({head_dim / 2});
    g.write(frequencies, inverse.data(), int64_t(inverse.size()) * 4);
    return rope(x, positions, frequencies, RopeAttr{.head_dim = head_dim, .rotated = head_dim});
}

}}  // namespace qlora
