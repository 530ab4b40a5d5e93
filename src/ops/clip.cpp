// clip.cpp - global_norm: y {1} = sqrt(sum of x^2). What clipping needs; AdamW applies the factor where it reads the
// gradient. Squares are exact in double and summed in a fixed order: eight interleaved sums a task, then the tasks in
// order.
#include "src/ops/rooms.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace clip_room {

void shape(const GraphImpl& g, Node& n) {
    float_source(g, n, 0);
    n.shape = {1};
}

int64_t tasks(const Node& x) { return (x.elements() + task_floats - 1) / task_floats; }

int64_t scratch(const GraphImpl& g, const Node& n) { return tasks(g.source(n, 0)) * 8; }

double sum_of_squares(const float* x, int64_t n) {
    double s[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int l = 0; l < 8; ++l) s[l] += double(x[i + l]) * double(x[i + l]);
    }
    for (int l = 0; i < n; ++i, ++l) s[l] += double(x[i]) * double(x[i]);
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

void cpu(const Call& call) {
    const float* x = call.in(0);
    double* part = static_cast<double*>(call.scratch); // [tasks]
    split(call, call.source(0).elements(), 1,
          [&](int64_t first, int64_t last) { part[first / task_floats] = sum_of_squares(x + first, last - first); });
    double total = 0;
    for (int64_t i = 0; i < tasks(call.source(0)); ++i) total += part[i];
    *call.result() = float(std::sqrt(total));
}

}  // namespace clip_room

const OpDef global_norm_def{.name = "global_norm", .shape = clip_room::shape};
const Kernel global_norm_cpu{clip_room::cpu, clip_room::scratch};

Tensor global_norm(Tensor x) { return graph_of({x}, "global_norm").add(Op::global_norm, {x}); }

}}  // namespace qlora
