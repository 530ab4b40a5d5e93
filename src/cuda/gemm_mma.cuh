// gemm_mma.cuh - matrix products on tensor cores (mma.sync, sm_80 and later): factors in bf16, sums in f32.
//
// A block owns a tile of C, a warp a part of it. `stages` slices of 64 of the inner dimension are on their way through
// cp.async; of each factor a slice is lines of 64 elements, 8 chunks of 16 bytes, chunk c of line r at c ^ (r & 7): so
// neither copies nor ldmatrix meet bank conflicts. A factor lies along the inner dimension (C = X W^T: both do) or
// across it (dX = dY W: W does); then its lines are 64 of the other dimension, and ldmatrix transposes.
// Blocks of different y have different stretches of the inner dimension, whose sums are added in order.
#pragma once
#include "src/cuda/gemm_f32.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemm_room {

constexpr int slice = 64;                              // of the inner dimension: lines of 128 bytes

template <int bm_, int bn_, int warps_m_, int warps_n_, int stages_, int blocks_> struct Tile {
    static constexpr int bm = bm_, bn = bn_, warps_n = warps_n_, stages = stages_;
    static constexpr int blocks = blocks_;             // that a multiprocessor of sm_90 shall have room for
    static constexpr int threads = warps_m_ * warps_n_ * 32, wm = bm / warps_m_, wn = bn / warps_n_;
    static_assert(wm % 16 == 0 && wn % 16 == 0);
    __host__ __device__ static constexpr int bytes(bool across, int outer) {
        return across ? slice * 128 * ((outer + 63) / 64) : outer * 128;
    }
    static constexpr int sums_line = bn + 4;           // floats of a row of sums, in the same memory at the end
    __host__ __device__ static constexpr int shared(bool a_across, bool b_across) {
        const int ring = stages * (bytes(a_across, bm) + bytes(b_across, bn)), sums = bm * sums_line * 4;
        return ring > sums ? ring : sums;
    }
};
// 64 x 64 a warp: the most products for what ldmatrix reads
using Large = Tile<large_tile.m, large_tile.n, 2, 4, 3, 1>;
using Medium = Tile<medium_tile.m, medium_tile.n, 2, 2, 3, 2>;                 // 96 KB: sm_86, 89 and 120 have as much
using Slim = Tile<slim_tile.m, slim_tile.n, 2, 4, 3, 2>;                       // 16 to 64 rows
using Rank = Tile<rank_tile.m, rank_tile.n, 1, 4, 4, 3>;                       // ranks and batches of up to 16

struct Factor {                                        // lines of whole 16 bytes, at multiples of 16 bytes
    const uint16_t* data;
    int64_t ld;
};

struct Job {
    Factor a, b;
    int m, n, k;                                       // along: k is a multiple of 8; across: m (n) is
    Finish put;
    float* parts;                                      // {gridDim.y, m, n}, when there are several stretches
    const int32_t* live;                               // as Product::live
    __device__ bool leaves_out(int m0, int n0) const { return live && (put.swapped ? n0 : m0) >= *live; }
};

// Where the tile of this block begins. Blocks that run at a time share slices in the L2 cache: groups of so many tiles
// of m walk through n.
struct Corner { int m0, n0; };
template <class T, int at_a_time> __device__ inline Corner corner_of(const Job& p) {
    const int tiles_m = (p.m + T::bm - 1) / T::bm, tiles_n = (p.n + T::bn - 1) / T::bn, group = at_a_time * tiles_n;
    const int first = int(blockIdx.x) / group * at_a_time, in_group = int(blockIdx.x) % group,
              wide = tiles_m - first < at_a_time ? tiles_m - first : at_a_time;
    return {(first + in_group % wide) * T::bm, in_group / wide * T::bn};
}

// The slices of the inner dimension that this block sums.
struct Stretch { int begin, end; };
__device__ inline Stretch stretch_of(const Job& p) {
    const int64_t slices = (p.k + slice - 1) / slice;
    return {int(slices * blockIdx.y / gridDim.y), int(slices * (blockIdx.y + 1) / gridDim.y)};
}

// Byte of chunk `chunk` of line `line`, in a slice of `lines` lines; longer lines go in columns of 64 elements.
__device__ inline int chunk_at(int lines, int line, int chunk) {
    return (chunk / 8 * lines + line) * 128 + ((chunk & 7) ^ (line & 7)) * 16;
}

// Starts the copy of a slice: [first, first + outer) of the outer dimension, of which there are `limit`, and [k0, k0 +
// slice) of the inner one. The chunks of a thread are whole eights of lines apart, so their places differ by constants.
template <bool across, int outer, int threads>
__device__ inline void copy_slice(unsigned char* to, const Factor& from, int first, int limit, int k0, int k) {
    constexpr int chunks = across ? outer / 8 : 8, lines = across ? slice : outer, apart = threads / chunks,
                  turns = (lines + apart - 1) / apart;
    static_assert(threads % chunks == 0 && (turns == 1 || apart % 8 == 0));
    const int row = int(threadIdx.x) / chunks, chunk = int(threadIdx.x) % chunks;
    const int col = (across ? first : k0) + chunk * 8, line = (across ? k0 : first) + row;
    const int cols = across ? limit : k, all_lines = across ? k : limit;
    const uint16_t* source = from.data + line * from.ld + col;
    unsigned char* place = to + chunk_at(lines, row, chunk);
    QLORA_UNROLL
    for (int t = 0; t < turns; ++t) {
        if (lines % apart && row + t * apart >= lines) break;
        const bool inside = line + t * apart < all_lines && col < cols;
        cp_async16(place + t * apart * 128, inside ? source + t * apart * from.ld : from.data, inside);
    }
}

// 16 of the outer dimension by 16 of the inner one, from `at` and kk on: for A four 8 x 8 matrices in the order of
// (rows 0, inner 0), (8, 0), (0, 8), (8, 8); for B the inner dimension comes first: registers 0, 1 are columns 0 to 7.
template <bool across, bool is_a, int outer>
__device__ inline void fragment(uint32_t (&r)[4], const unsigned char* from, int at, int kk) {
    const int lane = int(threadIdx.x) % 32, i = lane % 8, low = lane / 8 & 1, high = lane / 16;
    const int o = is_a ? low : high, x = is_a ? high : low;
    if constexpr (across) ldmatrix<true>(r, from + chunk_at(slice, kk + 8 * x + i, at / 8 + o));
    else ldmatrix<false>(r, from + chunk_at(outer, at + 8 * o + i, kk / 8 + x));
}

template <class T, bool a_across, bool b_across>
__device__ inline void multiply_slice(float (&sum)[T::wm / 16][T::wn / 8][4], const unsigned char* a,
                                      const unsigned char* b, int row, int col) {
    QLORA_UNROLL
    for (int kk = 0; kk < slice; kk += 16) {
        uint32_t v[T::wn / 16][4];
        QLORA_UNROLL
        for (int j = 0; j < T::wn / 16; ++j) fragment<b_across, false, T::bn>(v[j], b, col + 16 * j, kk);
        QLORA_UNROLL
        for (int i = 0; i < T::wm / 16; ++i) {
            uint32_t u[4];
            fragment<a_across, true, T::bm>(u, a, row + 16 * i, kk);
            QLORA_UNROLL
            for (int j = 0; j < T::wn / 8; ++j) {
                const uint32_t pair[2] = {v[j / 2][j % 2 * 2], v[j / 2][j % 2 * 2 + 1]};
                mma_bf16(sum[i][j], u, pair);
            }
        }
    }
}

// The sums go through shared memory, so that lines of C are written whole.
template <class T>
__device__ inline void write_tile(const Job& p, float* sums, const float (&sum)[T::wm / 16][T::wn / 8][4], int m0,
                                  int n0, int row, int col) {
    const int lane = int(threadIdx.x) % 32;
    QLORA_UNROLL
    for (int i = 0; i < T::wm / 16; ++i)
        QLORA_UNROLL
        for (int j = 0; j < T::wn / 8; ++j)
            QLORA_UNROLL
            for (int e = 0; e < 4; ++e)
                sums[(row + 16 * i + 8 * (e / 2) + lane / 4) * T::sums_line + col + 8 * j + 2 * (lane % 4) + e % 2] =
                    sum[i][j][e];
    __syncthreads();
    const int rows = p.m - m0 < T::bm ? p.m - m0 : T::bm, cols = p.n - n0 < T::bn ? p.n - n0 : T::bn;
    if (p.parts) {
        float* to = p.parts + (int64_t(blockIdx.y) * p.m + m0) * p.n + n0;
        for (int at = int(threadIdx.x); at < T::bm * T::bn; at += T::threads) {
            const int i = at / T::bn, j = at % T::bn;
            if (i < rows && j < cols) to[int64_t(i) * p.n + j] = sums[i * T::sums_line + j];
        }
    } else if (p.put.fours) {
        for (int at = int(threadIdx.x); at < T::bm * T::bn / 4; at += T::threads) {
            const int i = at / (T::bn / 4), j = at % (T::bn / 4) * 4;
            const float4& four = *reinterpret_cast<float4*>(sums + i * T::sums_line + j);
            if (i < rows && j < cols) p.put.four(m0 + i, n0 + j, four);
        }
    } else {                                           // neighbours of C's lines, whichever way it lies
        for (int at = int(threadIdx.x); at < T::bm * T::bn; at += T::threads) {
            const int i = p.put.swapped ? at % T::bm : at / T::bn, j = p.put.swapped ? at / T::bm : at % T::bn;
            if (i < rows && j < cols) p.put.one(m0 + i, n0 + j, sums[i * T::sums_line + j]);
        }
    }
}

template <class T, bool a_across, bool b_across>
__global__ void __launch_bounds__(T::threads, T::blocks) tensor_cores(Job p) {
    constexpr int a_bytes = T::bytes(a_across, T::bm), stage_bytes = a_bytes + T::bytes(b_across, T::bn);
    QLORA_DYNAMIC_SHARED(unsigned char, memory);
    const Corner corner = corner_of<T, 8>(p);
    const Stretch stretch = stretch_of(p);
    const int m0 = corner.m0, n0 = corner.n0, begin = stretch.begin, end = stretch.end;
    if constexpr (!a_across || T::bm <= Slim::bm)      // a larger one across is of a weight's gradient: all rows count
        if (p.leaves_out(m0, n0)) return;
    const int warp = int(threadIdx.x) / 32, row = warp / T::warps_n * T::wm, col = warp % T::warps_n * T::wn;
    const auto start = [&](int s) {                    // one group a slice, also an empty one
        if (s < end) {
            unsigned char* to = memory + (s - begin) % T::stages * stage_bytes;
            copy_slice<a_across, T::bm, T::threads>(to, p.a, m0, p.m, s * slice, p.k);
            copy_slice<b_across, T::bn, T::threads>(to + a_bytes, p.b, n0, p.n, s * slice, p.k);
        }
        cp_async_commit();
    };
    float sum[T::wm / 16][T::wn / 8][4] = {};
    for (int s = 0; s < T::stages - 1; ++s) start(begin + s);
    for (int s = begin; s < end; ++s) {
        cp_async_wait<T::stages - 2>();
        __syncthreads();    // slice s is there for all, and all are done with the one that is refilled now
        start(s + T::stages - 1);
        const unsigned char* a = memory + (s - begin) % T::stages * stage_bytes;
        multiply_slice<T, a_across, b_across>(sum, a, a + a_bytes, row, col);
    }
    cp_async_wait<0>();
    __syncthreads();                                   // all are done with the ring
    write_tile<T>(p, reinterpret_cast<float*>(memory), sum, m0, n0, row, col);
}

// C from the stretches of the inner dimension, added in order.
static __global__ void add_stretches(const float* parts, int stretches, int m, int n, Finish put) {
    const int64_t count = int64_t(m) * n, step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += step) {
        float sum = 0;
        for (int s = 0; s < stretches; ++s) sum += parts[s * count + at];
        put.one(at / n, at % n, sum);
    }
}

// Lines of bf16 that tensor cores read: whole 16 bytes, zeros behind the end. A thread makes 8 elements.
static __global__ void pack_lines(Values from, int64_t ld, bool fours, int64_t lines, int64_t line, uint16_t* to) {
    const int64_t eights = (line + 7) / 8, count = lines * eights, step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        const int64_t at = i / eights * ld, col = i % eights * 8;
        float v[8];
        if (fours && col + 8 <= line) {                // of f32
            const float4* four = reinterpret_cast<const float4*>(static_cast<const float*>(from.data) + at + col);
            const float4 p = four[0], q = four[1];
            v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w, v[4] = q.x, v[5] = q.y, v[6] = q.z, v[7] = q.w;
        } else {
            QLORA_UNROLL
            for (int x = 0; x < 8; ++x) v[x] = col + x < line ? from[at + col + x] : 0.0f;
        }
        reinterpret_cast<uint4*>(to)[i] =
            make_uint4(bf16_bits(v[0]) | bf16_bits(v[1]) << 16, bf16_bits(v[2]) | bf16_bits(v[3]) << 16,
                       bf16_bits(v[4]) | bf16_bits(v[5]) << 16, bf16_bits(v[6]) | bf16_bits(v[7]) << 16);
    }
}

}  // namespace gemm_room
}  // namespace cuda
}}  // namespace qlora
