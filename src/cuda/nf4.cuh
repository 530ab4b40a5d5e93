// nf4.cuh - 4-bit weights on the device: what their bytes mean, and the product with a few vectors in f32.
//
//   w[e] = codebook[code[e]] * absmax(e / block)
//   absmax(b) = map[code8[b]] * absmax2[b / block2] + offset, decoded in the kernel
//
// The product has a form for whole words, which real models meet (rows that are multiples of 32 elements), and a form
// for any row length, in which a block may straddle rows and a byte may belong to two rows. On an H200 (sm_90, copy
// 4.2 TB/s read and written) it reaches 10 % to 24 % of the copy's speed: the look-ups in shared memory bound it.
#pragma once
#include "src/cuda/device.cuh"
#include "src/cuda/plan/values.h"
#include "src/tensor/weight.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace nf4_room {

constexpr int gemv_warps = 8, gemv_tile = 4096;    // floats of x in shared memory at a time: 16.5 KiB with the padding
constexpr int lane_weights = 32;                       // a lane's share of a row: one 16-byte load

// FourBit with divisions turned into shifts: block sizes are powers of two in every file there is.
struct Scales {
    const float *codebook, *absmax, *map, *absmax2;
    const uint8_t* code;
    float offset;
    int shift, shift2;
};

// Rounded after the multiplication and after the addition, as on the CPU: a fused one would differ in the last bit.
__device__ inline float scale_at(const Scales& s, int64_t block) {
    if (s.absmax) return s.absmax[block];
    return __fadd_rn(__fmul_rn(s.map[s.code[block]], s.absmax2[block >> s.shift2]), s.offset);
}

__device__ inline int code_at(const uint8_t* codes, int64_t e) { return e & 1 ? codes[e / 2] & 15 : codes[e / 2] >> 4; }

// y[t, row] = sum of w[row, k] x[t, k]; a warp owns `rows_a_warp` rows, block y = t. Each lane multiplies 32 weights
// and applies their scale once to the sum. In shared memory, x is padded by one float in 32 (lanes start 33 floats
// apart) and the codebook is there once a lane, so that no access has a bank conflict whatever the codes are.
template <int rows_a_warp>
static __global__ void gemv_words(const uint8_t* codes, Scales s, int64_t rows, int64_t cols, const float* x,
                                  float* y) {
    QLORA_SHARED(float, book, 16 * 32);
    QLORA_SHARED(float, piece, gemv_tile + gemv_tile / 32);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    for (int i = int(threadIdx.x); i < 16 * 32; i += int(blockDim.x)) book[i] = s.codebook[i / 32];
    x += int64_t(blockIdx.y) * cols;
    const int64_t first = (int64_t(blockIdx.x) * gemv_warps + warp) * rows_a_warp;
    float sum[rows_a_warp] = {};
    for (int64_t start = 0; start < cols; start += gemv_tile) {
        const int count = int(cols - start < gemv_tile ? cols - start : gemv_tile);
        __syncthreads();                               // everyone is done with the previous piece
        for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) piece[i + i / 32] = x[start + i];
        __syncthreads();
        for (int at = lane * lane_weights; at < count; at += 32 * lane_weights) {
            uint4 word[rows_a_warp];
            float part[rows_a_warp] = {};
            int64_t e[rows_a_warp];
            for (int r = 0; r < rows_a_warp; ++r) {
                const int64_t row = first + r < rows ? first + r : rows - 1;   // beyond the end: computed and dropped
                e[r] = row * cols + start + at;
                word[r] = *reinterpret_cast<const uint4*>(codes + e[r] / 2);
            }
            const float* mine = piece + at + at / 32;
            for (int j = 0; j < 16; ++j) {
                const float x0 = mine[2 * j], x1 = mine[2 * j + 1];
                for (int r = 0; r < rows_a_warp; ++r) {
                    const uint32_t four = j < 4    ? word[r].x
                                          : j < 8  ? word[r].y
                                          : j < 12 ? word[r].z
                                                   : word[r].w,
                                   byte = four >> (8 * (j & 3)) & 255;
                    part[r] += book[(byte >> 4) * 32 + lane] * x0 + book[(byte & 15) * 32 + lane] * x1;
                }
            }
            for (int r = 0; r < rows_a_warp; ++r) sum[r] += part[r] * scale_at(s, e[r] >> s.shift);
        }
    }
    for (int r = 0; r < rows_a_warp; ++r) {
        const float total = warp_sum(sum[r]);
        if (lane == 0 && first + r < rows) y[int64_t(blockIdx.y) * rows + first + r] = total;
    }
}

static __global__ void gemv_any(const uint8_t* codes, Scales s, int64_t rows, int64_t cols, const float* x, float* y) {
    const int lane = int(threadIdx.x) % 32;
    const int64_t row = int64_t(blockIdx.x) * gemv_warps + int(threadIdx.x) / 32;
    x += int64_t(blockIdx.y) * cols;
    float sum = 0;
    for (int64_t col = lane; row < rows && col < cols; col += 32) {
        const int64_t e = row * cols + col;
        sum += s.codebook[code_at(codes, e)] * scale_at(s, e >> s.shift) * x[col];
    }
    sum = warp_sum(sum);                               // outside the loop: every lane takes part
    if (lane == 0 && row < rows) y[int64_t(blockIdx.y) * rows + row] = sum;
}

inline int log2_of(int64_t block, const char* what) {
    int shift = 0;
    while ((int64_t(1) << shift) < block) ++shift;
    if (block < 1 || (int64_t(1) << shift) != block)
        fail(Errc::unsupported, what, ": a block of ", block, " elements is not a power of two");
    return shift;
}

inline Scales scales_of(const WeightRef& w, const char* what) {
    if (!is_4bit(w.dtype)) fail(Errc::unsupported, what, ": the weight must be nf4 or fp4, is ", name_of(w.dtype));
    if (w.rows < 1 || w.cols < 1) fail(Errc::shape, what, ": the weight has the shape [", w.rows, ", ", w.cols, "]");
    const FourBit& q = w.quant;
    return {q.codebook,    q.absmax, q.absmax_map,           q.absmax2,
            q.absmax_code, q.offset, log2_of(q.block, what), log2_of(q.block2, what)};
}

}  // namespace nf4_room

// y {tokens, rows} = x {tokens, cols} W^T, for a few tokens: each reads the weight once more.
inline void nf4_gemv(const Stream& stream, const WeightRef& w, const float* x, float* y, int64_t tokens) {
    const nf4_room::Scales s = nf4_room::scales_of(w, "nf4_gemv");
    const uint8_t* codes = static_cast<const uint8_t*>(w.data);
    const auto start = [&](auto kernel, int rows_a_warp) {
        const int64_t rows_a_block = int64_t(nf4_room::gemv_warps) * rows_a_warp;
        launch("nf4_gemv", kernel,
               {grid_of((w.rows + rows_a_block - 1) / rows_a_block, tokens), nf4_room::gemv_warps * 32}, stream, codes,
               s, w.rows, w.cols, x, y);
    };
    if (w.cols % nf4_room::lane_weights != 0 || w.quant.block % nf4_room::lane_weights != 0 ||
        !aligned_to(codes, 16))
        start(nf4_room::gemv_any, 1);
    else if (w.rows >= 4096)
        start(nf4_room::gemv_words<4>,
              4);    // enough blocks for every multiprocessor: share each load of x among four rows
    else start(nf4_room::gemv_words<1>, 1);
}

}  // namespace cuda
}}  // namespace qlora
