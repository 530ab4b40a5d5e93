// attention_tiles.cuh - what the tensor-core kernels of attention share: tiles of rows in shared memory, products of
// them with scores in registers, what the softmax is taken of.
//
// A tile holds rows of a head, `width` bf16 each; a head of fewer numbers is filled up with zeros. A warp owns 16 rows
// of one side and meets tiles of the other: S = left right^T, whose registers are laid out as the left side of the next
// product, P right. A thread has the rows lane / 4 and lane / 4 + 8 and of each 8 columns the two from 2 (lane % 4) on.
#pragma once
#include "src/cuda/attention_problem.cuh"

// Loops that cost registers when they are unrolled.
#ifdef QLORA_CUDA_EMULATION
#define QLORA_ROLLED
#else
#define QLORA_ROLLED _Pragma("unroll 1")
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

// 2^x, zero for what would be subnormal: one instruction.
__device__ inline float power2(float x) {
#ifdef QLORA_CUDA_EMULATION
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}
// Two numbers as bf16 in one register.
__device__ inline uint32_t pair(float low, float high) {
#if defined(QLORA_CUDA_EMULATION) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800)
    return bf16_bits(low) | bf16_bits(high) << 16;
#else
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#endif
}
__device__ inline float half_of(uint32_t both, int i) {
    return __uint_as_float(i == 0 ? both << 16 : both & 0xffff0000u);
}

// ---- Tiles. Chunks of 16 bytes change places by row, so that eight rows of one column lie in different banks.
template <int width> struct Tile {
    static constexpr int chunks = width / 8, row_bytes = width * 2;
    __device__ static int place(int row, int chunk) {
        const int turn = width % 64 == 0 ? row & 7 : row >> 1 & 3;
        return row * row_bytes + (chunk ^ turn) * 16;
    }
};

// Starts the copy of `rows` rows from `first` on; zeros beyond row `limit` and beyond `size` numbers.
template <int width, int rows, int threads>
__device__ inline void fetch(unsigned char* to, const uint16_t* from, int64_t step, int first, int64_t limit,
                             int size) {
    constexpr int chunks = Tile<width>::chunks;
    static_assert(rows * chunks % threads == 0);
    QLORA_ROLLED for (int i = 0; i < rows * chunks / threads; ++i) {
        const int at = int(threadIdx.x) + i * threads, row = at / chunks, chunk = at % chunks;
        const bool inside = first + row < limit && chunk * 8 < size;
        cp_async16(to + Tile<width>::place(row, chunk), from + (inside ? (first + row) * step + chunk * 8 : 0), inside);
    }
}

// ---- Products. The left side of S: 16 rows of a tile, kept in registers or read again for every product.
template <int width, bool kept> struct Left;
template <int width> struct Left<width, true> {
    uint32_t fragment[width / 16][4];
    __device__ __forceinline__ void load(const unsigned char* tile, int row) {
        const int lane = int(threadIdx.x) % 32;
        QLORA_UNROLL for (int k = 0; k < width / 16; ++k)
            ldmatrix<false>(fragment[k], tile + Tile<width>::place(row + lane % 16, 2 * k + lane / 16));
    }
    __device__ __forceinline__ void get(int k, uint32_t (&a)[4]) const {
        QLORA_UNROLL for (int i = 0; i < 4; ++i) a[i] = fragment[k][i];
    }
};
template <int width> struct Left<width, false> {
    const unsigned char* tile;
    int row;
    __device__ __forceinline__ void load(const unsigned char* from, int first) {
        tile = from;
        row = first + int(threadIdx.x) % 16;
    }
    __device__ __forceinline__ void get(int k, uint32_t (&a)[4]) const {
        ldmatrix<false>(a, tile + Tile<width>::place(row, 2 * k + int(threadIdx.x) % 32 / 16));
    }
};

// s {16, rows} = left right^T
template <int width, int blocks, bool kept>
__device__ __forceinline__ void multiply(float (&s)[blocks][4], const Left<width, kept>& left,
                                         const unsigned char* right) {
    const int lane = int(threadIdx.x) % 32, row = lane % 8 + lane / 16 * 8, half = lane / 8 & 1;
    QLORA_UNROLL for (int n = 0; n < blocks; ++n) {
        QLORA_UNROLL for (int i = 0; i < 4; ++i) s[n][i] = 0;
    }
    QLORA_UNROLL for (int k = 0; k < width / 16; ++k) {
        uint32_t a[4], b[4];
        left.get(k, a);
        QLORA_UNROLL for (int n = 0; n < blocks / 2; ++n) {
            ldmatrix<false>(b, right + Tile<width>::place(n * 16 + row, 2 * k + half));
            mma_bf16(s[2 * n], a, {b[0], b[1]});
            mma_bf16(s[2 * n + 1], a, {b[2], b[3]});
        }
    }
}

// s as the left side of a product
template <int blocks> __device__ __forceinline__ void pack(uint32_t (&to)[blocks / 2][4], const float (&s)[blocks][4]) {
    QLORA_UNROLL for (int k = 0; k < blocks / 2; ++k) {
        QLORA_UNROLL for (int i = 0; i < 4; ++i)
            to[k][i] = pair(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
    }
}

// y {16, 8 * out} += p {16, 16 * steps} right, of whose rows the numbers from 8 * chunk on are taken
template <int width, int out, int steps>
__device__ __forceinline__ void multiply_add(float (&y)[out][4], const uint32_t (&p)[steps][4],
                                             const unsigned char* right, int chunk) {
    const int lane = int(threadIdx.x) % 32;
    QLORA_UNROLL for (int k = 0; k < steps; ++k) {
        QLORA_UNROLL for (int n = 0; n < out / 2; ++n) {
            uint32_t b[4];
            ldmatrix<true>(b, right + Tile<width>::place(k * 16 + lane % 16, chunk + 2 * n + lane / 16));
            mma_bf16(y[2 * n], p[k], {b[0], b[1]});
            mma_bf16(y[2 * n + 1], p[k], {b[2], b[3]});
        }
    }
}

// Rows of a product of one thread, as bf16, 8 * out numbers of a row from 8 * chunk on; at(row) is where a row begins,
// negative where there is none.
template <int out, class At>
__device__ __forceinline__ void store_rows_of(uint16_t* to, const float (&y)[out][4], const float (&factor)[2], int row,
                                              int chunk, int size, const At& at) {
    const int lane = int(threadIdx.x) % 32;
    QLORA_UNROLL for (int half = 0; half < 2; ++half) {
        const int64_t begin = at(row + lane / 4 + 8 * half);
        QLORA_UNROLL for (int n = 0; n < out; ++n) {
            const int i = 8 * (chunk + n) + 2 * (lane % 4);
            if (begin >= 0 && i < size)
                *reinterpret_cast<uint32_t*>(to + begin + i) =
                    pair(y[n][2 * half] * factor[half], y[n][2 * half + 1] * factor[half]);
        }
    }
}

// ---- Scores: the weights are 2^(factor x - m), x = q k^T or with a cap what capped() makes of it.
__device__ inline float score_factor(const Problem& p) { return p.cap > 0 ? 1 : p.scale * log2_e; }
// cap tanh(scale product / cap), in base 2; tanh to 1e-7 absolute
__device__ inline float capped(const Problem& p, float product) {
    const float twice = product * (2 * p.scale / p.cap) * log2_e;
    return p.cap * log2_e * (1 - 2 / (1 + power2(twice)));
}

// ---- Extents.
// The least of a block's values, for each of n, in all threads.
template <int n> __device__ inline void block_least(int (&v)[n]) {
    QLORA_SHARED(int, parts, 32 * n);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
    QLORA_UNROLL for (int i = 0; i < n; ++i) {
        for (int far = 16; far > 0; far /= 2) v[i] = min(v[i], __shfl_xor_sync(0xffffffffu, v[i], far));
        if (lane == 0) parts[warp * n + i] = v[i];
    }
    __syncthreads();
    QLORA_UNROLL for (int i = 0; i < n; ++i) {
        for (int w = 0; w < warps; ++w) v[i] = min(v[i], parts[w * n + i]);
    }
    __syncthreads();
}

constexpr int most = 0x7fffffff;
struct Extent {
    int first, last;                                   // of what any row sees
    int every_first, every_last;                       // of what all rows see
    __device__ bool whole(int from, int to) const { return every_first <= from && to <= every_last; }
};
// Of the keys of rows [row, row + rows); `rows` is no more than the block has threads.
template <int rows> __device__ inline Extent keys_of_rows(const Problem& p, int64_t row) {
    int v[4] = {most, 0, 0, most};                     // signs turned where the largest is wanted
    if (const int64_t mine = row + int(threadIdx.x) % rows; mine < p.rows) {
        const Range r = p.range(mine);
        const int first = int(r.first), last = int(r.last);
        if (first < last) v[0] = first, v[1] = -last, v[2] = -first, v[3] = last;
        else v[2] = -most;
    }
    block_least(v);
    return v[0] < -v[1] ? Extent{v[0], -v[1], -v[2], v[3]} : Extent{0, 0, most, 0};
}

inline int width_of(int64_t size) { return size <= 64 ? 64 : size <= 96 ? 96 : size <= 128 ? 128 : 256; }

// Sources in bf16: where they lie, or a copy in scratch.
inline const uint16_t* in_bf16(const Call& call, int i, char*& scratch) {
    const Node& n = call.source(i);
    if (n.storage == DType::bf16) return call.in<uint16_t>(i);
    const WeightRef w = call.matrix(i);
    uint16_t* const copy = reinterpret_cast<uint16_t*>(scratch);
    decode_rows(call, w, 0, w.rows, {copy, DType::bf16});
    scratch += copy_bytes(n);
    return copy;
}
// What cp.async can read: views may begin anywhere.
inline bool is_aligned(const Call& call, int i) {
    return call.source(i).storage != DType::bf16 || reinterpret_cast<uintptr_t>(call.src[i]) % 16 == 0;
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
