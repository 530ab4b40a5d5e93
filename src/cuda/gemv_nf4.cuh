// gemv_nf4.cuh - 4-bit weights times 1 to 8 vectors on tensor cores, sm_80 and later.
//
// Bound by reading the codes, so all else must stay small beside it. A byte of codes is one look-up of a pair of bf16,
// and a pair is exactly one register of an A fragment of mma.sync: no conversion and no multiplication for each weight.
// The vectors are the 8 columns of B. The table has a copy for each lane (256 x 32 words, 32 KiB): no bank conflicts,
// whatever the codes are. The 64 weights of one scale are four products, whose sum is multiplied with the scale in f32.
// A block walks over tiles of 16 rows of W, a warp sums an eighth of the columns; the eight sums are added in order.
#pragma once
#include "src/cuda/decode.cuh"
#include "src/cuda/gemm.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemv_room {

constexpr int most_vectors = 8, warps = 8;
constexpr int tile_rows = 16, run = 64, depth = 4;     // depth: runs of 64 columns on their way for each warp, 2 KiB

struct PairScales {                                    // of a run: absmax[run >> shift], or doubly quantized
    nf4_room::Scales s;
    int shift;
};

// A lane's 8 bytes of codes of a run of each of two rows, and their scales.
template <bool doubled> struct Runs {
    uint2 codes[2];
    uint8_t code[2];
    float scale[2];
};

template <bool doubled>
__device__ inline void load_runs(Runs<doubled>& to, const uint8_t* codes, const PairScales& p, const int64_t (&first)[2],
                                 int r, int t) {
    QLORA_UNROLL
    for (int h = 0; h < 2; ++h) {
        const int64_t at = first[h] + r;
        if constexpr (doubled) to.code[h] = p.s.code[at >> p.shift];
        else to.scale[h] = p.s.absmax[at >> p.shift];
        to.codes[h] = *reinterpret_cast<const uint2*>(codes + at * (run / 2) + t * 8);
    }
}

// x of vector g: the lane's 16 columns of a run; the bytes of four products, of which j are bytes 2j and 2j + 1.
__device__ inline void multiply_run(float (&sum)[4], const uint2 (&codes)[2], const uint32_t* pairs, int lane,
                                    const uint4 (&x)[2]) {
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) {
        const uint32_t c0 = (j < 2 ? codes[0].x : codes[0].y) >> (16 * (j & 1)),
                       c1 = (j < 2 ? codes[1].x : codes[1].y) >> (16 * (j & 1));
        const uint32_t a[4] = {pairs[(c0 & 255) * 32 + lane], pairs[(c1 & 255) * 32 + lane],
                               pairs[(c0 >> 8 & 255) * 32 + lane], pairs[(c1 >> 8 & 255) * 32 + lane]};
        const uint4& v = x[j / 2];
        const uint32_t b[2] = {j & 1 ? v.z : v.x, j & 1 ? v.w : v.y};
        mma_bf16(sum, a, b);
    }
}

template <bool doubled>
__global__ void __launch_bounds__(warps * 32, 2) by_pairs(const uint8_t* codes, PairScales p, int64_t rows, int runs,
                                                          const uint16_t* x, int64_t ldx, int count,
                                                          gemm_room::Finish put) {
    QLORA_SHARED(uint32_t, pairs, 256 * 32);
    QLORA_SHARED(float, map, 256);
    QLORA_SHARED(float, part, warps * tile_rows * 8);
    const int tid = int(threadIdx.x), lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
    for (int i = tid; i < 256 * 32; i += warps * 32)
        pairs[i] = bf16_bits(p.s.codebook[i / 32 >> 4]) | bf16_bits(p.s.codebook[i / 32 & 15]) << 16;
    if (doubled)
        for (int i = tid; i < 256; i += warps * 32) map[i] = p.s.map[i];
    __syncthreads();
    const int begin = runs * warp / warps, end = runs * (warp + 1) / warps;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t row = tile * tile_rows + g, last = rows - 1;             // beyond the end: computed and dropped
        const int64_t first[2] = {(row < last ? row : last) * runs, (row + 8 < last ? row + 8 : last) * runs};
        Runs<doubled> held[depth] = {};
        QLORA_UNROLL
        for (int d = 0; d < depth; ++d)
            if (begin + d < end) load_runs(held[d], codes, p, first, begin + d, t);
        float sum[4] = {};
        for (int base = begin; base < end; base += depth) {
            QLORA_UNROLL
            for (int d = 0; d < depth; ++d) {
                const int r = base + d;
                if (r >= end) break;                   // the same for the whole warp
                const uint2 now[2] = {held[d].codes[0], held[d].codes[1]};
                float scale[2];
                QLORA_UNROLL
                for (int h = 0; h < 2; ++h) {
                    const int64_t at = (first[h] + r) >> p.shift;
                    scale[h] = doubled ? map[held[d].code[h]] * p.s.absmax2[at >> p.s.shift2] + p.s.offset
                                       : held[d].scale[h];
                }
                if (r + depth < end) load_runs(held[d], codes, p, first, r + depth, t);
                uint4 v[2] = {};
                if (g < count) {
                    const uint4* from = reinterpret_cast<const uint4*>(x + g * ldx + int64_t(r) * run + t * 16);
                    v[0] = from[0], v[1] = from[1];
                }
                float run_sum[4] = {};
                multiply_run(run_sum, now, pairs, lane, v);
                QLORA_UNROLL
                for (int e = 0; e < 4; ++e) sum[e] += run_sum[e] * scale[e / 2];
            }
        }
        __syncthreads();                               // all are done with the sums of the tile before
        QLORA_UNROLL
        for (int e = 0; e < 4; ++e) part[(warp * tile_rows + g + 8 * (e / 2)) * 8 + 2 * t + e % 2] = sum[e];
        __syncthreads();
        const int64_t mine = tile * tile_rows + tid / 8;
        if (tid >= tile_rows * 8 || tid % 8 >= count || mine >= rows) continue;
        float total = 0;
        for (int w = 0; w < warps; ++w) total += part[(w * tile_rows + tid / 8) * 8 + tid % 8];
        put.one(tid % 8, mine, total);
    }
}

inline bool takes_pairs(const Engine& engine, const WeightRef& w) {
    return !engine.exact && engine.capability >= 80 && is_4bit(w.dtype) && w.cols % run == 0 && w.cols / run < (1 << 26) &&
           w.quant.block % run == 0 && decode_room::is_power_of_two(w.quant.block) &&
           decode_room::is_power_of_two(w.quant.block2) && nf4_room::aligned_to(w.data, 8);
}
inline bool reads_pairs(const Values& x, int64_t ldx) {
    return x.type == DType::bf16 && nf4_room::aligned_to(x.data, 16) && ldx % 8 == 0;
}

// X that is not as tensor cores read it is packed in scratch, p.m * p.k * 2 bytes.
inline void run_pairs(const Engine& engine, const WeightRef& w, const Product& p, const gemm_room::Finish& put,
                      void* scratch) {
    char* memory = static_cast<char*>(scratch);
    const gemm_room::Side side{p.a, p.lda, false, p.m, p.k};
    const gemm_room::Factor x = gemm_room::factor_of(engine, side, memory);
    PairScales s{nf4_room::scales_of(w, "product with vectors"), 0};
    s.shift = s.s.shift - 6;                           // of runs of 64 elements
    const int64_t tiles = gemm_room::ceil_div(w.rows, tile_rows);
    const dim3 grid = grid_of(std::min<int64_t>(tiles, 2 * engine.multiprocessors));
    launch("product with vectors", w.quant.absmax ? by_pairs<false> : by_pairs<true>, {grid, warps * 32}, engine.stream,
           static_cast<const uint8_t*>(w.data), s, w.rows, int(w.cols / run), x.data, x.ld, int(p.m), put);
}

}  // namespace gemv_room
}  // namespace cuda
}}  // namespace qlora
