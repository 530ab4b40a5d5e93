// store_rows.cpp - state[rows[i]] = x[i] in place; state {capacity, n} in any type of encode_plain() whose blocks fill
// a row, x {count, n}, rows i32 {count}, a negative row skips. Or by parts, state[h][rows[i]] = the h-th part of x[i]:
// state {parts, capacity, n / parts}, so that the keys of one head lie side by side. The result is the state. This is
// how keys and values enter a cache. No gradient flows through it: caches are for generation.
#include "src/ops/rooms.h"
#include "src/tensor/encode.h"

namespace qlora { inline namespace QLORA_ABI {
namespace store_rows_room {

constexpr const char* what = "cache of keys and values (SessionOptions::cache, --cache)";

void shape(const GraphImpl& g, Node& n) {
    const Node &state = updated_source(g, n, 0), &x = float_source(g, n, 1);
    const int64_t parts = state.shape.size() == 3 ? state.shape[0] : 1;
    if (last_dim(state) * parts != last_dim(x) || state.shape.size() > 3)
        fail(Errc::shape, "store_rows: rows of ", x.shape, " into a state of ", state.shape);
    index_source(g, n, 2, leading(x));
    n.shape = state.shape;
    n.dtype = state.dtype;
}

void cpu(const Call& call) {
    const Shape& shape = call.node.shape;
    const int64_t n = last_dim(call.node), parts = shape.size() == 3 ? shape[0] : 1,
                  capacity = leading(call.node) / parts, count = leading(call.source(1));
    const int64_t row_bytes = bytes_of(call.node.dtype, n);
    const float* x = call.in(1);                       // {count, parts, n}
    const int32_t* rows = call.in<int32_t>(2);
    uint8_t* state = call.result<uint8_t>();           // {parts, capacity, n}
    for (int64_t i = 0; i < count; ++i) {
        if (rows[i] >= capacity)
            fail(Errc::argument, "store_rows: row ", rows[i], " of a state with ", capacity, " rows");
        for (int64_t h = 0; rows[i] >= 0 && h < parts; ++h)
            encode_plain(call.node.dtype, what, x + (i * parts + h) * n, state + (h * capacity + rows[i]) * row_bytes,
                         n);
    }
}

}  // namespace store_rows_room

const OpDef store_rows_def{.name = "store_rows", .shape = store_rows_room::shape, .aliases = 0, .effect = true};
const Kernel store_rows_cpu{store_rows_room::cpu};

Tensor store_rows(Tensor state, Tensor x, Tensor rows) {
    return graph_of({state, x, rows}, "store_rows").add(Op::store_rows, {state, x, rows});
}

}}  // namespace qlora
