// gemm_hopper.cuh - matrix products by warpgroups (wgmma, sm_90a): factors in bf16, sums in f32; A lies along the inner
// dimension, B along or across it.
//
// A block owns a tile of C. One thread of the last warpgroup keeps a ring of slices of 64 of the inner dimension filled
// by bulk copies; each of two warpgroups sums 64 rows of the tile from it. `full` of a place in the ring counts bytes,
// `empty` the two warpgroups. The products with a slice are under way while the next one is waited for.
// Stretches of the inner dimension and the way of the sums into C are those of gemm_mma.cuh.
#pragma once
#include "src/cuda/gemm_mma.cuh"
#include "src/cuda/hopper.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace gemm_room {

template <int bn_, int stages_> struct WarpgroupTile {
    static constexpr int bm = 128, bn = bn_, stages = stages_, wm = 16, wn = bn;
    static constexpr int threads = 256, all_threads = threads + 128;    // that sum, and with those that copy
    static constexpr int a_bytes = bm * 128, stage_bytes = a_bytes + bn * 128, ring_bytes = stages * stage_bytes;
    static constexpr int shared = ring_bytes + 2 * stages * 8;
    static constexpr int sums_line = bn + 4;
    static_assert(bm * sums_line * 4 <= ring_bytes);
    __device__ static uint64_t* full(unsigned char* ring, int at) {
        return reinterpret_cast<uint64_t*>(ring + ring_bytes) + at;
    }
    __device__ static uint64_t* empty(unsigned char* ring, int at) { return full(ring, stages + at); }
};
using Wide = WarpgroupTile<wide_tile.n, 4>;
using Narrow = WarpgroupTile<narrow_tile.n, 6>;        // twice the tiles, where those of Wide were too few
static_assert(Wide::bm == wide_tile.m && Narrow::bm == narrow_tile.m);

// Slices [begin, end) of both factors: each when its place in the ring is empty.
template <class T, bool b_across>
__device__ inline void fill_ring(unsigned char* ring, const TensorMap& a, const TensorMap& b, int m0, int n0, int begin,
                                 int end) {
    for (int s = begin; s < end; ++s) {
        const int at = (s - begin) % T::stages, turn = (s - begin) / T::stages;
        unsigned char* const to = ring + at * T::stage_bytes;
        uint64_t* const full = T::full(ring, at);
        mbarrier_wait(T::empty(ring, at), (turn & 1) ^ 1);    // at once in the first turn
        mbarrier_expect(full, T::stage_bytes);
        bulk_copy(to, a, s * slice, m0, full);
        if constexpr (b_across) {
            for (int j = 0; j < T::bn; j += 64) bulk_copy(to + T::a_bytes + j * 128, b, n0 + j, s * slice, full);
        } else {
            bulk_copy(to + T::a_bytes, b, s * slice, n0, full);
        }
    }
}

template <class T, bool b_across>
__device__ inline void sum_ring(float (&sum)[T::bn / 8][4], unsigned char* ring, int begin, int end) {
    constexpr int eight_lines = 8 * 128, panel = slice * 128;
    const bool first = threadIdx.x % 128 == 0;         // of its warpgroup
    tie_sums(sum);
    for (int s = begin; s < end; ++s) {
        const int at = (s - begin) % T::stages;
        const unsigned char *a = ring + at * T::stage_bytes + threadIdx.x / 128 * 64 * 128,
                            *b = ring + at * T::stage_bytes + T::a_bytes;
        mbarrier_wait(T::full(ring, at), (s - begin) / T::stages & 1);
        wgmma_fence();
        QLORA_UNROLL
        for (int k = 0; k < slice; k += 16)
            wgmma<b_across>(sum, matrix_at(a + k * 2, 16, eight_lines),
                            b_across ? matrix_at(b + k * 128, panel, eight_lines)
                                     : matrix_at(b + k * 2, 16, eight_lines));
        wgmma_commit();
        wgmma_wait<1>();                               // all are done with the slice before
        if (s > begin && first) mbarrier_arrive(T::empty(ring, (s - 1 - begin) % T::stages));
    }
    wgmma_wait<0>();
    tie_sums(sum);
}

template <class T, bool b_across>
__device__ inline void multiply_tile(const TensorMap& a, const TensorMap& b, const Job& p) {
    QLORA_DYNAMIC_SHARED(unsigned char, ring);
    const Corner corner = corner_of<T, 16>(p);
    const Stretch stretch = stretch_of(p);
    const int m0 = corner.m0, n0 = corner.n0, begin = stretch.begin, end = stretch.end;
    if (p.leaves_out(m0, n0)) return;
    if (threadIdx.x == 0) {
        for (int at = 0; at < T::stages; ++at) {
            mbarrier_init(T::full(ring, at), 1);
            mbarrier_init(T::empty(ring, at), T::threads / 128);
        }
        mbarrier_fence_init();
    }
    __syncthreads();
    if (threadIdx.x >= T::threads) {
        registers_give<40>();
        if (threadIdx.x == T::threads) fill_ring<T, b_across>(ring, a, b, m0, n0, begin, end);
        return;
    }
    registers_take<232>();
    float sum[1][T::bn / 8][4] = {};
    sum_ring<T, b_across>(sum[0], ring, begin, end);
    __syncthreads();    // of those that sum, for the others have ended: all are done with the ring
    write_tile<T>(p, reinterpret_cast<float*>(ring), sum, m0, n0, int(threadIdx.x) / 32 * T::wm, 0);
}

template <class T, bool b_across>
__global__ void __launch_bounds__(T::all_threads, 1)
warpgroups(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, Job p) {
    if constexpr (has_sm90a) multiply_tile<T, b_across>(a, b, p);
    else __trap();
}

// Facts::warpgroups of the device that is current.
inline bool finds_warpgroups(int capability) {
    return capability == 90 && has_tensor_maps() && is_for_sm90a(warpgroups<Wide, false>);
}

}  // namespace gemm_room
}  // namespace cuda
}}  // namespace qlora
