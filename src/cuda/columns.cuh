// columns.cuh - sums over the rows of a matrix, a column each: y[c] = sum of f(row, c). Gradients of vectors that every
// row has met.
//
// Block = 32 columns of a strip of rows; warp = every eighth row of the strip, lane = column. Eight sums a column meet
// in shared memory; strips, of which there are 64 at most, in scratch, where a second launch adds them in order.
#pragma once
#include "src/cuda/plan/rows.h"
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// F is a struct of values with `__device__ float operator()(int64_t row, int64_t column) const`.
template <class F>
__global__ void columns_kernel(int64_t rows, int64_t n, int64_t strip_rows, F f, float* part, Places y) {
    QLORA_SHARED(float, sums, 8 * 32);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const int64_t column = int64_t(blockIdx.x) * 32 + lane, first = int64_t(blockIdx.y) * strip_rows;
    const int64_t last = first + strip_rows < rows ? first + strip_rows : rows;
    float sum = 0;
    if (column < n)
        for (int64_t row = first + warp; row < last; row += 8) sum += f(row, column);
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0 || column >= n) return;
    sum = 0;
    for (int w = 0; w < 8; ++w) sum += sums[w * 32 + lane];
    if (gridDim.y == 1) y.set(column, sum);
    else part[int64_t(blockIdx.y) * n + column] = sum;
}

struct AddStrips {
    const float* part;
    int64_t strips, n;
    Places y;
    __device__ void operator()(int64_t column) const {
        float sum = 0;
        for (int64_t s = 0; s < strips; ++s) sum += part[s * n + column];
        y.set(column, sum);
    }
};

template <class F> void add_columns(const Call& call, int64_t rows, int64_t n, const F& f, float* scratch) {
    const Strips strips = strips_of(rows);
    const char* const name = op_def(call.node.op).name;
    launch(name, columns_kernel<F>, {grid_of((n + 31) / 32, strips.count), 256}, stream_of(call), rows, n, strips.rows,
           f, scratch, places(call));
    if (strips.count > 1) each(call, n, AddStrips{scratch, strips.count, n, places(call)});
}

}  // namespace cuda
}}  // namespace qlora
