// top_k.cpp - the k largest numbers of each row of x {rows, n} and their columns: y {rows, 2, k}, first the numbers
// from the largest on, then the columns; equal ones and NaN as in base/largest.h. No gradient.
//
// Columns are floats too: whole numbers up to 2^24 are exact.
#include "src/base/largest.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace top_k_room {

void shape(const GraphImpl& g, Node& n) {
    const Node& x = float_source(g, n, 0);
    const int64_t k = n.attr.get<TopKAttr>().k;
    if (x.shape.size() != 2 || k < 1 || k > std::min(x.shape[1], most_top_k) || x.shape[1] > int64_t(1) << 24)
        fail(Errc::shape, "top_k: the ", k, " largest of x ", x.shape,
             ", expected {rows, n} with n up to 2^24 and 1 to ", most_top_k, " of them, at most n");
    n.shape = {x.shape[0], 2, k};
}

void cpu(const Call& call) {
    const int64_t n = last_dim(call.source(0)), k = last_dim(call.node);
    const float* x = call.in(0);
    float* y = call.result();
    split(call, leading(call.source(0)), n, [&](int64_t first, int64_t last) {
        std::vector<Ranked> best(static_cast<size_t>(k));
        for (int64_t row = first; row < last; ++row) {
            largest(x + row * n, n, best);
            for (int64_t i = 0; i < k; ++i) {
                y[row * 2 * k + i] = best[size_t(i)].number;
                y[row * 2 * k + k + i] = float(best[size_t(i)].at);
            }
        }
    });
}

}  // namespace top_k_room

const OpDef top_k_def{.name = "top_k", .shape = top_k_room::shape};
const Kernel top_k_cpu{top_k_room::cpu};

Tensor top_k(Tensor x, int64_t k) { return graph_of({x}, "top_k").add(Op::top_k, {x}, attr_of(TopKAttr{k})); }

}}  // namespace qlora
