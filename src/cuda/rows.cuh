// rows.cuh - y = f(x) by rows of n, where f also depends on the row and the column.
//
// A block has 256 threads, some of them side by side on a row, a piece of 8 elements each, the others on further rows;
// it walks down, so that no index is divided.
#pragma once
#include "src/cuda/map.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// F is a struct of values with `__device__ float operator()(int64_t row, int64_t column, float x) const`.
template <int width, class F>
__global__ void rows_kernel(int64_t rows, int64_t n, int across, Values x, Places y, F f) {
    const int64_t column = (int64_t(blockIdx.x) * across + int(threadIdx.x) % across) * width;
    const int64_t down = int(blockDim.x) / across, step = down * gridDim.y;
    if (column >= n) return;
    for (int64_t row = blockIdx.y * down + int(threadIdx.x) / across; row < rows; row += step) {
        const int64_t i = row * n + column;
        if constexpr (width == 1) y.set(i, f(row, column, x[i]));
        else {
            Piece piece = load_piece(x, i);
            for (int j = 0; j < width; ++j) piece.v[j] = f(row, column + j, piece.v[j]);
            store_piece(y, i, piece);
        }
    }
}

template <class F> void map_rows(const Call& call, const Values& x, const Places& y, const F& f) {
    constexpr int threads = 256;
    const int64_t n = last_dim(call.node), rows = leading(call.node);
    const bool pieces = n % piece_of == 0 && pieces_at(x) && pieces_at(y);
    const int64_t units = pieces ? n / piece_of : n;
    int across = 1;
    while (across < threads && across < units) across *= 2;
    const int64_t blocks_across = (units + across - 1) / across, down = threads / across;
    const int64_t most = std::clamp<int64_t>(int64_t(device_of(call).multiprocessors) * 8 / blocks_across, 1, 65535);
    const dim3 grid = grid_of(blocks_across, std::min(most, (rows + down - 1) / down));
    launch(op_def(call.node.op).name, pieces ? rows_kernel<piece_of, F> : rows_kernel<1, F>, {grid, threads},
           stream_of(call), rows, n, across, x, y, f);
}

}  // namespace cuda
}}  // namespace qlora
