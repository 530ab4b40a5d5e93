// gated.cuh - what the gated products of a feed-forward share, y = act(gate) * up of one shape: all but the activation.
// F computes y of gate and up; Back dgate and dup of gate, up and dy, {2, elements}. The twin of src/ops/gated.h.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gated {

template <class F> void run(const Call& call) { map<2>(call, F{}); }
template <class Back> void back(const Call& call) {
    const int64_t count = call.source(0).elements();
    const Places out = places(call);
    map(call, count,
        Operands<3, 2>{{values(call, 0), values(call, 1), values(call, 2)}, {out, places_from(out, count)}}, Back{});
}

}  // namespace gated
}  // namespace cuda
}}  // namespace qlora
