// scale.cuh - y = factor * x, and y = s[row] * x for x {..., n}: src/ops/scale.cpp.
#pragma once
#include "src/cuda/rows.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace scale_room {

struct Scale {
    float factor;
    __device__ void operator()(int64_t, const float* x, float* y) const { y[0] = factor * x[0]; }
};

struct ScaleRow {
    Values s;
    __device__ float operator()(int64_t row, int64_t, float x) const { return s[row] * x; }
};

inline void run(const Call& call) { map<1>(call, Scale{call.node.attr.get<ScaleAttr>().factor}); }
inline void rows(const Call& call) { map_rows(call, values(call, 0), places(call), ScaleRow{values(call, 1)}); }

}  // namespace scale_room
}  // namespace cuda

inline const Kernel scale_cuda{cuda::scale_room::run};
inline const Kernel scale_rows_cuda{cuda::scale_room::rows};

}}  // namespace qlora
