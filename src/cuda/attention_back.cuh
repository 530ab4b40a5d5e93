// attention_back.cuh - the gradients of attention, flat [dq | dk | dv]: formulas in src/ops/attention_back.cpp.
#pragma once
#include "src/cuda/attention_back_rows.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

inline void back(const Call& call) {                   // sources dy, q, k, v, first, last, y with its L behind it
    back_rows(call, {problem(call, 1), values(call, 0), values(call, 6), call.saved_of(6),
                     static_cast<Stat*>(call.scratch), places(call)});
}

inline int64_t back_scratch(const GraphImpl& g, const Node& node) {
    return g.source(node, 1).shape[0] * node.attr.get<AttentionAttr>().heads * int64_t(sizeof(cuda::attention_room::Stat));
}

}  // namespace attention_room
}  // namespace cuda

const Kernel attention_back_cuda{cuda::attention_room::back, cuda::attention_room::back_scratch};

}}  // namespace qlora
