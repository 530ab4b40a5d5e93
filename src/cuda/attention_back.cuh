// attention_back.cuh - the gradients of attention, flat [dq | dk | dv]: formulas in src/ops/attention_back.cpp. By
// tensor cores where heads allow it.
#pragma once
#include "src/cuda/attention_back_tiles.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

inline void back(const Call& call) {                   // sources dy, q, k, v, first, last, y with its L behind it
    const Back b{problem(call, 1), values(call, 0), values(call, 6), call.saved_of(6), static_cast<Stat*>(call.scratch),
                 places(call)};
    bool aligned = true;
    for (int i = 0; i < 4; ++i) aligned = aligned && is_aligned(call, i);
    if (aligned && takes_back_tiles(call.graph, call.node)) back_tiles(call, b);
    else back_rows(call, b);
}

}  // namespace attention_room
}  // namespace cuda

inline const Kernel attention_back_cuda{cuda::attention_room::back, cuda::scratch_of(Op::attention_back)};

}}  // namespace qlora
