// attention.cuh - y = softmax(scale q k^T) v over a range of keys for each row, and behind y the log-sum-exp of every
// row and head for the backward pass: formulas in src/ops/attention.cpp. By tensor cores where there are many rows.
#pragma once
#include "src/cuda/attention_rows.cuh"

#include "src/cuda/attention_forward_tiles.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

inline void run(const Call& call) {
    const Problem p = problem(call, 0);
    const bool aligned = is_aligned(call, 0) && is_aligned(call, 1) && is_aligned(call, 2);
    if (aligned && takes_forward_tiles(call.graph, call.node)) forward_tiles(call, p);
    else forward_rows(call, p);
}

}  // namespace attention_room
}  // namespace cuda

inline const Kernel attention_cuda{cuda::attention_room::run, cuda::scratch_of(Op::attention)};

}}  // namespace qlora
