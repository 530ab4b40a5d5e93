// cross_entropy.cpp - y {1} = mean over the rows with targets[row] >= 0 of
//     lse(logits[row]) - logits[row][target],    lse(z) = log sum exp z.
//   dlogits = dy / count * (exp(logits - lse) - [column is the target]), 0 in ignored rows       (cross_entropy_back)
// Behind the result are kept for it: lse {rows}, then 1 / count. Without a single target the loss is 0.
// Logits are a whole {rows, vocabulary} here; the model trains with linear_cross_entropy, which never holds them.
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace cross_entropy_room {

void shape(const GraphImpl& g, Node& n) {
    const Node& logits = float_source(g, n, 0);
    index_source(g, n, 1, leading(logits));
    n.shape = {1};
    n.saved = leading(logits) + 1;
}

// The exponentials are not kept, only summed: through a buffer that stays in the first-level cache.
float log_sum_exp(const Vec& v, const float* z, int64_t n) {
    constexpr int64_t piece = 1024;
    float buffer[piece];
    const float top = v.max(z, n);
    double total = 0;
    for (int64_t i = 0; i < n; i += piece) total += v.exp_sum(z + i, top, buffer, std::min(piece, n - i));
    return top + float(std::log(total));
}

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t n = last_dim(call.source(0)), rows = leading(call.source(0));
    const float* logits = call.in(0);
    const int32_t* targets = call.in<int32_t>(1);
    float *y = call.result(), *lse = call.saved();
    for (int64_t r = 0; r < rows; ++r) {
        if (targets[r] >= n)
            fail(Errc::argument, "cross_entropy: target ", targets[r], " in row ", r, ", the logits have ", n,
                 " columns");
    }
    split(call, rows, n, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) lse[r] = targets[r] >= 0 ? log_sum_exp(v, logits + r * n, n) : 0;
    });
    double total = 0;
    int64_t count = 0;
    for (int64_t r = 0; r < rows; ++r) {
        if (targets[r] >= 0) total += double(lse[r]) - double(logits[r * n + targets[r]]), ++count;
    }
    y[0] = count ? float(total / double(count)) : 0;
    lse[rows] = count ? float(1 / double(count)) : 0;
}

void grad(GraphImpl& g, const Node& n, int32_t self, int32_t dy) {
    g.accumulate(n.src[0],
                 g.add(Op::cross_entropy_back, {g.handle(n.src[0]), g.handle(n.src[1]), g.handle(self), g.handle(dy)}));
}

void back_shape(const GraphImpl& g, Node& n) {
    const Node& logits = float_source(g, n, 0);
    index_source(g, n, 1, leading(logits));
    if (g.source(n, 2).saved != leading(logits) + 1 || float_source(g, n, 3).elements() != 1)
        fail(Errc::shape, "cross_entropy_back: logits ", logits.shape, " with a loss ", g.source(n, 2).shape,
             " and a gradient ", g.source(n, 3).shape);
    n.shape = logits.shape;
}

void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t n = last_dim(call.node), rows = leading(call.node);
    const float *logits = call.in(0), *lse = call.saved_of(2);
    const int32_t* targets = call.in<int32_t>(1);
    const float factor = *call.in(3) * lse[rows];
    float* dx = call.result();
    split(call, rows, n, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) {
            float* out = dx + r * n;
            if (targets[r] < 0) {
                std::fill(out, out + n, 0.0f);
                continue;
            }
            v.exp_sum(logits + r * n, lse[r], out, n);
            out[targets[r]] -= 1;
            v.scale(factor, out, out, n);
        }
    });
}

}  // namespace cross_entropy_room

const OpDef cross_entropy_def{.name = "cross_entropy", .shape = cross_entropy_room::shape,
                              .grad = cross_entropy_room::grad, .results = 2};
const Kernel cross_entropy_cpu{cross_entropy_room::cpu};
const OpDef cross_entropy_back_def{.name = "cross_entropy_back", .shape = cross_entropy_room::back_shape};
const Kernel cross_entropy_back_cpu{cross_entropy_room::back_cpu};

Tensor cross_entropy(Tensor logits, Tensor targets) {
    return graph_of({logits, targets}, "cross_entropy").add(Op::cross_entropy, {logits, targets});
}

}}  // namespace qlora
