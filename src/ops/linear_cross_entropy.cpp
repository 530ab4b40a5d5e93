// linear_cross_entropy.cpp - nll {rows} of targets under the logits x {rows, n} W^T, W {vocabulary, n}, with the
// gradient towards x from the same pass: rows x vocabulary logits never exist, only a chunk of them.
//
//     nll_i = log(sum_j exp(z_ij)) - z_i,target        dx_i = dy_i (softmax(z_i) - onehot(target_i)) W
// With a cap z is cap tanh(x W^T / cap), and the bracket is multiplied by 1 - (z / cap)^2.
// The bracket times W is kept behind the result, {rows, n}; the gradient rule only multiplies its rows by dy.
// Rows with a negative target are never projected: the trained rows are gathered first.
#include "src/cpu/gemm.h"
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace linear_cross_entropy_room {

// Logits in scratch: 32 MB, between 8 rows (each chunk reads all of W, twice) and 512 (nothing is gained by more).
// A function of the vocabulary alone, so that results never depend on the machine.
int64_t chunk_of(int64_t vocabulary) { return std::clamp<int64_t>((int64_t(32) << 20) / 4 / vocabulary, 8, 512); }

struct Sizes { int64_t rows, n, vocabulary, chunk; };

Sizes sizes(const Node& x, const Node& w, const CrossEntropyAttr& attr) {
    const int64_t chunk = chunk_of(w.shape[0]);
    return {x.shape[0], x.shape[1], w.shape[0],
            std::min(attr.chunk > 0 ? std::min(attr.chunk, chunk) : chunk, x.shape[0])};
}

void shape(const GraphImpl& g, Node& node) {
    const Node &x = float_source(g, node, 0), &w = weight_source(g, node, 1), &targets = g.source(node, 2);
    if (x.shape.size() != 2 || w.shape.size() != 2 || x.shape[1] != w.shape[1] || targets.shape != Shape{x.shape[0]} ||
        w.shape[0] < 1) {
        fail(Errc::shape, "linear_cross_entropy: x ", x.shape, ", w ", w.shape, ", targets ", targets.shape,
             ", expected {rows, n}, {vocabulary, n}, {rows}");
    }
    if (targets.dtype != DType::i32)
        fail(Errc::argument, "linear_cross_entropy: targets have type ", name_of(targets.dtype), ", expected i32");
    const CrossEntropyAttr attr = node.attr.get<CrossEntropyAttr>();
    check_cap(node, attr.cap, true);
    if (attr.chunk < 0) fail(Errc::argument, "linear_cross_entropy: chunks of ", attr.chunk, " rows");
    node.shape = {x.shape[0]};
    node.saved = attr.with_grad ? x.elements() : 0;
}

// logits, gathered x (later its gradient) and the list of trained rows
int64_t scratch(const GraphImpl& g, const Node& node) {
    const Sizes s = sizes(g.source(node, 0), g.source(node, 1), node.attr.get<CrossEntropyAttr>());
    return s.chunk * (s.vocabulary + s.n) * 4 + s.rows * 4;
}

// One row of logits becomes its softmax minus the one-hot target; returns the nll.
float row_loss(const Vec& vec, float* z, int64_t vocabulary, int64_t target, bool with_grad) {
    const float maximum = vec.max(z, vocabulary), chosen = z[target];
    const float sum = vec.exp_sum(z, maximum, z, vocabulary);
    if (with_grad) {
        vec.scale(1 / sum, z, z, vocabulary);
        z[target] -= 1;
    }
    return std::log(sum) + maximum - chosen;
}

// The same of logits under a cap. Its derivative needs them once more after their softmax: they stay, and the
// exponentials, which cost little beside the products of a row with W, are made twice, through a buffer that stays in
// the first-level cache.
float capped_row_loss(const Vec& vec, float* z, int64_t vocabulary, int64_t target, bool with_grad, float cap) {
    constexpr int64_t piece = 1024;
    float p[piece];
    vec.softcap(cap, z, z, vocabulary);
    const float maximum = vec.max(z, vocabulary), chosen = z[target];
    double sum = 0;
    for (int64_t j = 0; j < vocabulary; j += piece)
        sum += vec.exp_sum(z + j, maximum, p, std::min(piece, vocabulary - j));
    for (int64_t j = 0; with_grad && j < vocabulary; j += piece) {
        const int64_t count = std::min(piece, vocabulary - j);
        vec.exp_sum(z + j, maximum, p, count);
        vec.scale(float(1 / sum), p, p, count);
        if (target >= j && target < j + count) p[target - j] -= 1;
        vec.softcap_back(cap, z + j, p, z + j, count);
    }
    return float(std::log(sum)) + maximum - chosen;
}

int64_t gather_trained(const int32_t* targets, int64_t rows, int64_t vocabulary, int32_t* trained) {
    int64_t count = 0;
    for (int64_t i = 0; i < rows; ++i) {
        if (targets[i] >= vocabulary) {
            fail(Errc::argument, "linear_cross_entropy: target ", targets[i], " of row ", i,
                 " is outside the vocabulary of ", vocabulary, "; negative targets are ignored");
        }
        if (targets[i] >= 0) trained[count++] = int32_t(i);
    }
    return count;
}

void forward(const Call& call) {
    const CrossEntropyAttr attr = call.node.attr.get<CrossEntropyAttr>();
    const Sizes s = sizes(call.source(0), call.source(1), attr);
    Cpu& cpu = cpu_of(call);
    const Vec& loops = cpu.kernels->vec;
    const float* x = call.in(0);
    const int32_t* targets = call.in<int32_t>(2);
    const WeightRef w = call.matrix(1);
    KeptPanels *const forth = panels_of(call, 1, Pass::forward), *const back = panels_of(call, 1, Pass::backward);
    float* nll = call.result();
    float* kept = call.saved();                                            // {rows, n}, with_grad only
    float* logits = static_cast<float*>(call.scratch);                     // {chunk, vocabulary}
    float* gathered = logits + s.chunk * s.vocabulary;                     // {chunk, n}
    int32_t* trained = reinterpret_cast<int32_t*>(gathered + s.chunk * s.n);   // {rows}
    const int64_t count = gather_trained(targets, s.rows, s.vocabulary, trained);
    std::fill_n(nll, s.rows, 0.0f);
    if (attr.with_grad) std::fill_n(kept, s.rows * s.n, 0.0f);
    for (int64_t start = 0; start < count; start += s.chunk) {
        const int64_t rows = std::min(s.chunk, count - start);
        const int32_t* at = trained + start;
        for (int64_t i = 0; i < rows; ++i) std::copy_n(x + at[i] * s.n, s.n, gathered + i * s.n);
        gemm_nt(cpu, rows, gathered, s.n, w, logits, s.vocabulary, 1, 0, forth);
        cpu.pool.run(rows, [&](int64_t i, int) {
            float* z = logits + i * s.vocabulary;
            const int64_t target = targets[at[i]];
            nll[at[i]] = attr.cap > 0 ? capped_row_loss(loops, z, s.vocabulary, target, attr.with_grad, attr.cap)
                                      : row_loss(loops, z, s.vocabulary, target, attr.with_grad);
        });
        if (!attr.with_grad) continue;
        gemm_nn(cpu, rows, logits, s.vocabulary, w, gathered, s.n, 1, 0, back);
        for (int64_t i = 0; i < rows; ++i) std::copy_n(gathered + i * s.n, s.n, kept + at[i] * s.n);
    }
}

void grad(GraphImpl& g, const Node& forward, int32_t self, int32_t dy) {
    const auto& src = forward.src;
    if (g.wants_grad(src[1])) {
        fail(Errc::unsupported, "linear_cross_entropy: the gradient towards w ", g.node(src[1]).shape,
             " is not computed; use matmul and cross_entropy to train it");
    }
    if (!forward.attr.get<CrossEntropyAttr>().with_grad)
        fail(Errc::argument, "linear_cross_entropy: built without with_grad, so there is no gradient towards x");
    const Shape x = g.node(src[0]).shape;
    g.accumulate(src[0], scale_rows(view(g.handle(self), x[0], x), g.handle(dy)));
}

}  // namespace linear_cross_entropy_room

const OpDef linear_cross_entropy_def{.name = "linear_cross_entropy", .shape = linear_cross_entropy_room::shape,
                                     .grad = linear_cross_entropy_room::grad, .results = 2};
const Kernel linear_cross_entropy_cpu{linear_cross_entropy_room::forward, linear_cross_entropy_room::scratch};

int64_t chunks_of_loss(const GraphImpl& g, const Node& node) {
    namespace room = linear_cross_entropy_room;
    const room::Sizes s = room::sizes(g.source(node, 0), g.source(node, 1), node.attr.get<CrossEntropyAttr>());
    return (s.rows + s.chunk - 1) / s.chunk;
}

Tensor linear_cross_entropy(Tensor x, Tensor w, Tensor targets, bool with_grad, float cap, int64_t chunk) {
    CrossEntropyAttr attr;
    attr.chunk = chunk;
    attr.with_grad = with_grad;
    attr.cap = cap;
    return graph_of({x, w, targets}, "linear_cross_entropy")
        .add(Op::linear_cross_entropy, {x, w, targets}, attr_of(attr));
}

}}  // namespace qlora
