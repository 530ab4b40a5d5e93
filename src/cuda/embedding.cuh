// embedding.cuh - y[row] = table[ids[row]] and its gradient, dtable[id] = sum of dy[row] over the rows with that id, in
// order, as in src/ops/embedding.cpp.
//
// Forward: a block a row, a thread an element; the stored table is decoded where it is read. Backward: rows of one id
// are linked in order, then a block for the first row of each id walks along them, a thread a column. Ids outside of
// the table are reported; their rows are zeros, or add to nothing.
#pragma once
#include "src/cuda/decode.cuh"
#include "src/cuda/plan/rows.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace embedding_room {

constexpr int threads = 256;

static __global__ void gather(WeightRef table, const int32_t* ids, Places y) {
    const int64_t row = blockIdx.x, id = ids[row], n = table.cols;
    const bool known = id >= 0 && id < table.rows;
    for (int64_t col = threadIdx.x; col < n; col += threads)
        y.set(row * n + col, known ? element(table, id * n + col) : 0.0f);
}

// link[row]: the next row with the same id, `rows` behind the last one; ~ of it where an earlier row has the id too.
struct Link {
    const int32_t* ids;
    int64_t rows;
    int64_t* link;
    __device__ void operator()(int64_t row) const {
        const int32_t id = ids[row];
        int64_t first = 0, next = row + 1;
        while (ids[first] != id) ++first;
        while (next < rows && ids[next] != id) ++next;
        link[row] = first == row ? next : ~next;
    }
};

static __global__ void add_rows(const int32_t* ids, const int64_t* link, int64_t rows, int64_t vocabulary, int64_t n,
                                Values dy, Places table) {
    const int64_t first = blockIdx.x, id = ids[first];
    if (link[first] < 0 || id < 0 || id >= vocabulary) return;
    for (int64_t col = threadIdx.x; col < n; col += threads) {
        float sum = 0;
        for (int64_t row = first; row < rows;) {
            sum += dy[row * n + col];
            const int64_t next = link[row];
            row = next < 0 ? ~next : next;
        }
        table.set(id * n + col, sum);
    }
}

inline void run(const Call& call) {
    const WeightRef table = call.matrix(0);
    const int32_t* const ids = call.in<int32_t>(1);
    const int64_t rows = leading(call.node);
    if (rows == 0) return;
    check_rows(call, ids, rows, 0, table.rows);
    launch("embed", gather, {grid_of(rows), threads}, stream_of(call), table, ids, places(call));
}

inline void back(const Call& call) {
    const int64_t n = last_dim(call.node), vocabulary = leading(call.node), rows = call.source(0).elements();
    const int32_t* const ids = call.in<int32_t>(0);
    int64_t* const link = static_cast<int64_t*>(call.scratch);
    check(cudaMemsetAsync(call.out, 0, size_t(call.node.bytes()), stream_of(call).get()), "clear");
    if (rows == 0) return;
    check_rows(call, ids, rows, 0, vocabulary);
    each(call, rows, Link{ids, rows, link});
    launch("embedding_back", add_rows, {grid_of(rows), threads}, stream_of(call), ids, link, rows, vocabulary, n,
           values(call, 1), places(call));
}

}  // namespace embedding_room
}  // namespace cuda

inline const Kernel embedding_cuda{cuda::embedding_room::run};
inline const Kernel embedding_back_cuda{cuda::embedding_room::back, cuda::scratch_of(Op::embedding_back)};

}}  // namespace qlora
