// gemv_nf4.cuh - 4-bit weights times 1 to 8 vectors on tensor cores, sm_80 and later.
//
// Bound by reading the codes, so all else must stay small beside it. A pair of bf16 is exactly one register of an A
// fragment of mma.sync: no multiplication for each weight. The codebook, rounded to bf16, is in eight registers: byte
// permutations look four codes up at a time, so there is no table to build in shared memory and nothing to wait for.
// The vectors are the 8 columns of B. The 64 weights of one scale are four products, whose sum is multiplied with the
// scale in f32. A block has 16 rows of W at a time, a warp sums an eighth of the columns; the sums are added in order.
// Up to four matrices with the same x, as q, k, v are, go in one launch.
#pragma once
#include "src/cuda/decode.cuh"
#include "src/cuda/gemm.cuh"
#include "src/cuda/plan/panels.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemv_room {

constexpr int warps = 8;
constexpr int tile_rows = 16, depth = 3;               // depth: runs of 64 columns on their way for each warp

struct PairScales {                                    // of a run: absmax[run >> shift], or doubly quantized
    nf4_room::Scales s;
    int shift;
};

// What a lane needs of a run: 8 bytes of codes of each of two rows, their scales or what these are made of, and 16
// columns of x of vector g.
template <bool doubled> struct Runs {
    uint2 codes[2];
    uint8_t code[2];
    float scale[2];                                    // doubled: the scale of the scale
    uint4 x[2];
};

// Where a lane reads: rows g and g + 8 of a tile, vector g.
struct Lane {
    const uint8_t* codes;
    int64_t first[2];                                  // the first run of either row
    const uint16_t* x;                                 // null: there is no vector g
    int t;
};

template <bool doubled>
__device__ inline void load_runs(Runs<doubled>& to, const Lane& lane, const PairScales& p, int r) {
    QLORA_UNROLL
    for (int h = 0; h < 2; ++h) {
        const int64_t at = lane.first[h] + r;
        to.codes[h] = *reinterpret_cast<const uint2*>(lane.codes + at * (run / 2) + lane.t * 8);
        if constexpr (doubled) {
            to.code[h] = p.s.code[at >> p.shift];
            to.scale[h] = p.s.absmax2[at >> p.shift >> p.s.shift2];
        } else {
            to.scale[h] = p.s.absmax[at >> p.shift];
        }
    }
    if (!lane.x) return;                               // zeros, from the beginning
    const uint4* from = reinterpret_cast<const uint4*>(lane.x + int64_t(r) * run + lane.t * 16);
    to.x[0] = from[0], to.x[1] = from[1];
}

// The codebook: byte h of entry i is byte i % 4 of word h[i / 4].
struct Book {
    uint32_t low[4], high[4];
    __device__ explicit Book(const float* codebook) {
        QLORA_UNROLL
        for (int w = 0; w < 4; ++w) {
            low[w] = high[w] = 0;
            QLORA_UNROLL
            for (int i = 0; i < 4; ++i) {
                const uint32_t bits = bf16_bits(codebook[4 * w + i]);
                low[w] |= (bits & 255) << (8 * i);
                high[w] |= (bits >> 8) << (8 * i);
            }
        }
    }
    // Byte `half` of the entries of four codes: three bits of each select among eight bytes, the fourth between two.
    static __device__ uint32_t look_up(const uint32_t (&half)[4], uint32_t codes) {
        const uint32_t select = codes & 0x7777u, choose = 0x3210u | (codes & 0x8888u) >> 1;
        return __byte_perm(__byte_perm(half[0], half[1], select), __byte_perm(half[2], half[3], select), choose);
    }
    // Of two bytes of codes, each the code of an element in its high bits and that of the next in the low ones.
    __device__ void pairs(uint32_t codes, uint32_t& first, uint32_t& second) const {
        const uint32_t l = look_up(low, codes), h = look_up(high, codes);
        first = __byte_perm(l, h, 0x4051);
        second = __byte_perm(l, h, 0x6273);
    }
};

// x of vector g: the lane's 16 columns of a run; the bytes of four products, of which j are bytes 2j and 2j + 1.
__device__ inline void multiply_run(float (&sum)[4], const uint2 (&codes)[2], const Book& book, const uint4 (&x)[2]) {
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) {
        uint32_t a[4];
        QLORA_UNROLL
        for (int h = 0; h < 2; ++h) {
            const uint32_t word = j < 2 ? codes[h].x : codes[h].y;
            book.pairs(j & 1 ? word >> 16 : word, a[h], a[2 + h]);
        }
        const uint4& v = x[j / 2];
        const uint32_t b[2] = {j & 1 ? v.z : v.x, j & 1 ? v.w : v.y};
        mma_bf16(sum, a, b);
    }
}

struct Matrix {
    const uint8_t* codes;
    PairScales scales;
    int64_t rows, tiles;                               // tiles: of this matrix and all before it
    gemm_room::Finish put;
};
struct Matrices { Matrix list[most_matrices]; };       // unused ones have no tiles of their own

// Everything of the first `depth` runs is on its way before anything is waited for, and of the next tile before the
// sums of this one are added: a block lives for a few microseconds, and a load takes one.
template <bool doubled>
__global__ void __launch_bounds__(warps * 32, 2) by_pairs(const __grid_constant__ Matrices m, int runs,
                                                          const uint16_t* x, int64_t ldx, int count) {
    QLORA_SHARED(float, map, 256);
    QLORA_SHARED(float, part, warps * tile_rows * 8);
    const int tid = int(threadIdx.x), warp = tid / 32, g = tid % 32 / 4, t = tid % 4;
    const int begin = runs * warp / warps, end = runs * (warp + 1) / warps;
    const int64_t tiles = m.list[most_matrices - 1].tiles;
    Lane lane{nullptr, {}, g < count ? x + g * ldx : nullptr, t};
    Runs<doubled> held[depth] = {};
    int which = 0;
    int64_t tile = 0;                                  // of that matrix
    const auto start = [&](int64_t at) {
        while (at >= m.list[which].tiles) ++which;
        const Matrix& w = m.list[which];
        tile = which ? at - m.list[which - 1].tiles : at;
        const int64_t row = tile * tile_rows + g, last = w.rows - 1;           // beyond the end: computed and dropped
        lane.codes = w.codes;
        lane.first[0] = (row < last ? row : last) * runs, lane.first[1] = (row + 8 < last ? row + 8 : last) * runs;
        QLORA_UNROLL
        for (int d = 0; d < depth; ++d)
            if (begin + d < end) load_runs(held[d], lane, w.scales, begin + d);
    };
    if (blockIdx.x < tiles) start(blockIdx.x);
    const Book book(m.list[0].scales.s.codebook);      // the same one for all, and so is the map
    if (doubled)
        for (int i = tid; i < 256; i += warps * 32) map[i] = m.list[0].scales.s.map[i];
    __syncthreads();
    for (int64_t at = blockIdx.x; at < tiles; at += gridDim.x) {
        const Matrix& w = m.list[which];
        float sum[4] = {};
        for (int base = begin; base < end; base += depth) {
            QLORA_UNROLL
            for (int d = 0; d < depth; ++d) {
                const int r = base + d;
                if (r >= end) break;                   // the same for the whole warp
                const Runs<doubled> now = held[d];
                if (r + depth < end) load_runs(held[d], lane, w.scales, r + depth);
                float run_sum[4] = {};
                multiply_run(run_sum, now.codes, book, now.x);
                QLORA_UNROLL
                for (int e = 0; e < 4; ++e) {
                    const float scale = doubled ? map[now.code[e / 2]] * now.scale[e / 2] + w.scales.s.offset
                                                : now.scale[e / 2];
                    sum[e] += run_sum[e] * scale;
                }
            }
        }
        const int64_t mine = tile * tile_rows + tid / 8;
        if (at + gridDim.x < tiles) start(at + gridDim.x);
        __syncthreads();                               // all are done with the sums of the tile before
        QLORA_UNROLL
        for (int e = 0; e < 4; ++e) part[(warp * tile_rows + g + 8 * (e / 2)) * 8 + 2 * t + e % 2] = sum[e];
        __syncthreads();
        if (tid >= tile_rows * 8 || tid % 8 >= count || mine >= w.rows) continue;
        float total = 0;
        for (int k = 0; k < warps; ++k) total += part[(k * tile_rows + tid / 8) * 8 + tid % 8];
        w.put.one(tid % 8, mine, total);
    }
}

// X that is not as tensor cores read it is packed in scratch, p.m * p.k * 2 bytes. All products have the same X.
inline void run_pairs(const Engine& engine, std::span<const WeightRef> weights, std::span<const Product> products,
                      void* scratch) {
    const Product& p = products[0];
    char* memory = static_cast<char*>(scratch);
    const gemm_room::Side side{p.a, p.lda, false, p.m, p.k};
    const gemm_room::Factor x = gemm_room::factor_of(engine, side, memory);
    Matrices m{};
    int64_t tiles = 0;
    for (size_t i = 0; i < size_t(most_matrices); ++i) {
        Matrix& to = m.list[i];
        if (i < weights.size()) {
            const WeightRef& w = weights[i];
            to = {static_cast<const uint8_t*>(w.data), {nf4_room::scales_of(w, "product with vectors"), 0}, w.rows, 0,
                  gemm_room::finish_of(products[i])};
            to.scales.shift = to.scales.s.shift - 6;   // of runs of 64 elements
            tiles += gemm_room::ceil_div(w.rows, tile_rows);
        }
        to.tiles = tiles;
    }
    const dim3 grid = grid_of(std::min<int64_t>(tiles, 2 * engine.multiprocessors));
    launch("product with vectors", weights[0].quant.absmax ? by_pairs<false> : by_pairs<true>, {grid, warps * 32},
           engine.stream, m, int(p.k / run), x.data, x.ld, int(p.m));
}

}  // namespace gemv_room
}  // namespace cuda
}}  // namespace qlora
