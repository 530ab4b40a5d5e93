// store_rows.cuh - state[rows[i]] = x[i] in place, or by parts: see src/ops/store_rows.cpp. States are held in f32,
// f16, bf16 or q8_0, with the bytes of encode_plain (src/tensor/encode.cpp).
//
// Dense types: a block for part h of row i, a thread an element. q8_0: a warp a block of 32, a lane an element. Rows
// below 0 are skipped, rows beyond the state reported and skipped. Of two rows with one index either may stay: callers
// give each its own. A number that the type cannot hold is reported.
#pragma once
#include "src/cuda/room.cuh"

#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace store_rows_room {

constexpr int threads = 128, warps = threads / 32;
constexpr int64_t block = 32, block_bytes = 34;        // of q8_0: the scale in f16, then 32 signed bytes

struct Target {                                        // {parts, capacity, n}
    const int32_t* rows;
    int64_t count, parts, capacity, n;                 // count: of rows
    float largest;                                     // that the type holds
    int32_t op, type;
    Fault* fault;
    // The row of parts * capacity that part `piece` % parts of row `piece` / parts goes to; -1 = none. `says`: one
    // thread of those that ask.
    __device__ int64_t row_of(int64_t piece, bool says) const {
        const int64_t i = piece / parts, row = rows[i];
        if (row >= capacity && says) report(fault, {wrong_index, op, i, row, capacity});
        return row < 0 || row >= capacity ? -1 : (piece - i * parts) * capacity + row;
    }
    __device__ void look_at(float x, int64_t piece) const {
        if (!(fabsf(x) <= largest)) report(fault, {wrong_number, op, piece / parts, 0, 0, x, type});
    }
};

static __global__ void dense(Target target, Values x, Places state) {
    for (int64_t piece = blockIdx.x; piece < target.count * target.parts; piece += gridDim.x) {
        const int64_t row = target.row_of(piece, threadIdx.x == 0), n = target.n;
        if (row < 0) continue;
        for (int64_t col = threadIdx.x; col < n; col += threads) {
            const float v = x[piece * n + col];
            if (state.type != DType::f32) target.look_at(v, piece);
            state.set(row * n + col, v);
        }
    }
}

__device__ inline float largest_magnitude(float v) {   // of a warp; what is not a number does not count
    float most = v < 0 ? -v : v > 0 ? v : 0;
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, most, step);
        most = most < other ? other : most;
    }
    return most;
}

// A warp's 32 values, one a lane, as a block at `to`.
__device__ inline void encode_q8_0(float v, uint8_t* to) {
    const int lane = int(threadIdx.x) % 32;
    const float d = largest_magnitude(v) / 127;
    const uint32_t half = f16_bits(65504.0f < d ? 65504.0f : d);
    const float held = f32_of_f16(half), inverse = held > 0 ? 1 / held : 0, scaled = __fmul_rn(v, inverse);
    const float clipped = scaled < -127 ? -127 : 127 < scaled ? 127 : scaled;
    // the sum with 1.5 * 2^23 has no room for a fraction: rounded, ties to even
    const float whole = __fadd_rn(__fadd_rn(clipped, 12582912.0f), -12582912.0f);
    to[2 + lane] = uint8_t(int(whole) & 255);
    if (lane < 2) to[lane] = uint8_t(half >> (8 * lane) & 255);
}

static __global__ void q8_0(Target target, Values x, uint8_t* state) {
    const int lane = int(threadIdx.x) % 32;
    const int64_t a_row = target.n / block, blocks = target.count * target.parts * a_row;
    for (int64_t b = int64_t(blockIdx.x) * warps + threadIdx.x / 32; b < blocks; b += int64_t(gridDim.x) * warps) {
        const int64_t piece = b / a_row, row = target.row_of(piece, lane == 0);
        if (row < 0) continue;                         // the whole warp
        const float v = x[b * block + lane];
        target.look_at(v, piece);
        encode_q8_0(v, state + (row * a_row + (b - piece * a_row)) * block_bytes);
    }
}

inline void run(const Call& call) {
    const Node& state = call.node;
    const int64_t parts = state.shape.size() == 3 ? state.shape[0] : 1, n = last_dim(state),
                  count = leading(call.source(1));
    const float largest = state.storage == DType::f16    ? 65504.0f
                          : state.storage == DType::q8_0 ? 65504.0f * 127
                                                         : 3.38e38f;    // of bf16, as in encode.cpp
    const Target target{call.in<int32_t>(2), count, parts, leading(state) / parts, n, largest, int32_t(call.node.op),
                        int32_t(state.storage), device_of(call).fault};
    if (count == 0) return;
    const Values x = values(call, 1);
    switch (state.storage) {
        case DType::f32: case DType::f16: case DType::bf16:
            return launch("store_rows", dense, {grid_for(call, count * parts, 1), threads}, stream_of(call), target, x,
                          places(call));
        case DType::q8_0:
            return launch("store_rows", q8_0, {grid_for(call, count * parts * (n / block), warps), threads},
                          stream_of(call), target, x, call.result<uint8_t>());
        default:
            fail(Errc::unsupported, "cache of keys and values (SessionOptions::cache, --cache): not held as ",
                 name_of(state.storage), "; choose f32, f16, bf16 or q8_0");
    }
}

}  // namespace store_rows_room
}  // namespace cuda

inline const Kernel store_rows_cuda{cuda::store_rows_room::run};

}}  // namespace qlora
