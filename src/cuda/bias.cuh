// bias.cuh - y = x + b for every row of x {..., n}, and the gradient of b, the sum over the rows: src/ops/bias.cpp.
#pragma once
#include "src/cuda/columns.cuh"
#include "src/cuda/factor.cuh"
#include "src/cuda/rows.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace bias_room {

struct Forward {
    Values b;
    __device__ float operator()(int64_t, int64_t column, float x) const { return x + b[column]; }
};

struct Back {
    Values dy;
    int64_t n;
    __device__ float operator()(int64_t row, int64_t column) const { return dy[row * n + column]; }
};

inline void run(const Call& call) { map_rows(call, values(call, 0), places(call), Forward{factors(call, 1)}); }

inline void back(const Call& call) {
    const int64_t n = last_dim(call.source(0)), rows = leading(call.source(0));
    add_columns(call, rows, n, Back{values(call, 0), n}, static_cast<float*>(call.scratch));
}

}  // namespace bias_room
}  // namespace cuda

inline const Kernel bias_cuda{cuda::bias_room::run, cuda::scratch_of(Op::bias)};
inline const Kernel bias_back_cuda{cuda::bias_room::back, cuda::scratch_of(Op::bias_back)};

}}  // namespace qlora
