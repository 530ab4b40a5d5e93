// embedding.cpp - y[row] = table[ids[row]], table {vocabulary, n}, ids i32 {rows}.
// dtable[id] = sum of dy[row] over the rows with that id.
// The table is a stored weight of any type (only the rows asked for are decoded; it has no gradient) or float values.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace embedding_room {

void shape(const GraphImpl& g, Node& n) {
    const Node& table = weight_source(g, n, 0);
    if (table.shape.size() != 2)
        fail(Errc::shape, "embed: a table of shape ", table.shape, ", expected [vocabulary, n]");
    const int64_t rows = n.src[1] < 0 ? 0 : g.source(n, 1).elements();
    index_source(g, n, 1, rows);
    n.shape = {rows, table.shape[1]};
}

void check_ids(const int32_t* ids, int64_t rows, int64_t vocabulary) {
    for (int64_t r = 0; r < rows; ++r) {
        if (ids[r] < 0 || ids[r] >= vocabulary)
            fail(Errc::argument, "embed: id ", ids[r], " in row ", r, ", the table has ids 0 to ", vocabulary - 1);
    }
}

void cpu(const Call& call) {
    const WeightRef table = call.matrix(0);
    const int32_t* ids = call.in<int32_t>(1);
    const int64_t n = last_dim(call.node), rows = leading(call.node);
    float* y = call.result();
    check_ids(ids, rows, table.rows);
    split(call, rows, n, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) decode(table, ids[r] * n, n, y + r * n);
    });
}

void grad(GraphImpl& g, const Node& n, int32_t, int32_t dy) {
    g.accumulate(n.src[0], g.add(Op::embedding_back, {g.handle(n.src[1]), g.handle(dy)}, {}, g.source(n, 0).shape));
}

void back_shape(const GraphImpl& g, Node& n) {
    const Node& dy = float_source(g, n, 1);
    index_source(g, n, 0, leading(dy));
    if (n.shape.size() != 2 || n.shape[1] != last_dim(dy))
        fail(Errc::shape, "embedding_back: a gradient of shape ", dy.shape, " for a table of shape ", n.shape);
}

// Two rows may have one id: columns are split between tasks, 16 (a cache line) the unit, and rows are added in order.
void back_cpu(const Call& call) {
    const Vec& v = cpu_of(call).kernels->vec;
    const int64_t n = last_dim(call.node), vocabulary = leading(call.node), rows = call.source(0).elements();
    const int32_t* ids = call.in<int32_t>(0);
    const float* dy = call.in(1);
    float* table = call.result();
    check_ids(ids, rows, vocabulary);
    split(call, vocabulary * n, 1, [&](int64_t first, int64_t last) { std::fill(table + first, table + last, 0.0f); });
    split(call, (n + 15) / 16, 16 * rows, [&](int64_t first, int64_t last) {
        const int64_t begin = first * 16, width = std::min(n, last * 16) - begin;
        for (int64_t r = 0; r < rows; ++r) {
            float* to = table + ids[r] * n + begin;
            v.add(to, dy + r * n + begin, to, width);
        }
    });
}

}  // namespace embedding_room

const OpDef embedding_def{.name = "embed", .shape = embedding_room::shape, .grad = embedding_room::grad};
const Kernel embedding_cpu{embedding_room::cpu};
const OpDef embedding_back_def{.name = "embedding_back", .shape = embedding_room::back_shape};
const Kernel embedding_back_cpu{embedding_room::back_cpu};

Tensor embed(Tensor table, Tensor ids) { return graph_of({table, ids}, "embed").add(Op::embedding, {table, ids}); }

}}  // namespace qlora
