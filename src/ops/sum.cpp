// sum.cpp - y {1} = sum of all x.   dx = dy[0] everywhere (sum_back, whose shape is given).
// Pieces of 1024 are summed in float, the pieces of a task and then the tasks in double and in order: accurate, and the
// same for any threads.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace sum_room {

void shape(const GraphImpl& g, Node& n) {
    float_source(g, n, 0);
    n.shape = {1};
}

int64_t tasks(const Node& x) { return (x.elements() + task_floats - 1) / task_floats; }

int64_t scratch(const GraphImpl& g, const Node& n) { return tasks(g.source(n, 0)) * 8; }

void cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const float* x = call.in(0);
    double* part = static_cast<double*>(call.scratch); // [tasks]
    split(call, call.source(0).elements(), 1, [&](int64_t first, int64_t last) {
        double total = 0;
        for (int64_t i = first; i < last; i += 1024) total += v.sum(x + i, std::min<int64_t>(1024, last - i));
        part[first / task_floats] = total;
    });
    double total = 0;
    for (int64_t i = 0; i < tasks(call.source(0)); ++i) total += part[i];
    *call.result() = float(total);
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.add(Op::sum_back, {g.handle(dy)}, {}, g.source(n, 0).shape));
}

void back_shape(const GraphImpl& g, Node& n) {
    const Node& dy = float_source(g, n, 0);
    if (dy.elements() != 1) fail(Errc::shape, "sum_back: a gradient of shape ", dy.shape, ", expected [1]");
    if (n.shape.empty()) fail(Errc::shape, "sum_back: the shape of the result is missing");
}

void back_cpu(const Call& call) {
    const float value = *call.in(0);
    float* dx = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) { std::fill(dx + first, dx + last, value); });
}

}  // namespace sum_room

const OpDef sum_def{.name = "sum", .shape = sum_room::shape, .grad = sum_room::grad};
const Kernel sum_cpu{sum_room::cpu, sum_room::scratch};
const OpDef sum_back_def{.name = "sum_back", .shape = sum_room::back_shape};
const Kernel sum_back_cpu{sum_room::back_cpu};

Tensor sum(Tensor x) { return graph_of({x}, "sum").add(Op::sum, {x}); }

}}  // namespace qlora
