// store_rows.cpp - state[rows[i]] = x[i] in place; state {capacity, n}, x {count, n}, rows i32 {count}, a negative row skips. The result is the state.
// This is how keys and values enter a cache. No gradient flows through it: caches are for generation.
#include "src/ops/rooms.h"

namespace qlora::inline v0_1 {
namespace store_rows_room {

void shape(const GraphImpl& g, Node& n) {
    const Node &state = updated_source(g, n, 0), &x = float_source(g, n, 1);
    if (last_dim(state) != last_dim(x)) fail(Errc::shape, "store_rows: rows of ", x.shape, " into a state of ", state.shape);
    index_source(g, n, 2, leading(x));
    n.shape = state.shape;
}

void cpu(const Call& call) {
    const int64_t n = last_dim(call.node), capacity = leading(call.node), count = leading(call.source(1));
    const float* x = call.in(1);
    const int32_t* rows = call.in<int32_t>(2);
    float* state = call.result();
    for (int64_t i = 0; i < count; ++i) {
        if (rows[i] >= capacity) fail(Errc::argument, "store_rows: row ", rows[i], " of a state with ", capacity, " rows");
        if (rows[i] >= 0) std::copy(x + i * n, x + (i + 1) * n, state + rows[i] * n);
    }
}

}  // namespace store_rows_room

const OpDef store_rows_def{.name = "store_rows", .shape = store_rows_room::shape, .cpu = store_rows_room::cpu, .grad = nullptr, .aliases = 0, .effect = true};

Tensor store_rows(Tensor state, Tensor x, Tensor rows) { return graph_of({state, x, rows}, "store_rows").add(Op::store_rows, {state, x, rows}); }

}  // namespace qlora
