// attention.cuh - y = softmax(scale q k^T) v over a range of keys for each row, and behind y the log-sum-exp of every
// row and head for the backward pass: formulas in src/ops/attention.cpp.
#pragma once
#include "src/cuda/attention_rows.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

inline void run(const Call& call) { forward_rows(call, problem(call, 0)); }

inline int64_t scratch(const GraphImpl& g, const Node& node) {
    return partial_bytes(node.shape[0], keys_of(g.source(node, 1)), node.attr.get<AttentionAttr>());
}

}  // namespace attention_room
}  // namespace cuda

const Kernel attention_cuda{cuda::attention_room::run, cuda::attention_room::scratch};

}}  // namespace qlora
