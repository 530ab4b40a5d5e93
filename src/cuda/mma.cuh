// mma.cuh - instructions beyond plain CUDA, as functions: asynchronous copies into shared memory, matrices from shared
// memory into registers, products of 16 x 8 x 16 on tensor cores. For sm_80 and later; on what is older they trap.
//
// The tests run the same names on a CPU (tests/cuda-emulation/cuda_mma_emulation.h).
#pragma once
#include "src/cuda/device.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

#ifdef QLORA_CUDA_EMULATION
using cuda_emulation::cp_async16;
using cuda_emulation::cp_async_commit;
using cuda_emulation::cp_async_wait;
using cuda_emulation::ldmatrix;
using cuda_emulation::mma_bf16;
#else
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define QLORA_SM80(...) __VA_ARGS__
#else
#define QLORA_SM80(...) __trap()
#endif

__device__ inline unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// 16 bytes from global to shared memory, both addresses multiples of 16; zeros where not `inside`: the source is not
// read then, but must be an address of global memory.
__device__ inline void cp_async16(void* to, const void* from, bool inside) {
    QLORA_SM80(asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
               ::"r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0) : "memory"));
}
// What this thread has started since the last commit is a group.
__device__ inline void cp_async_commit() { QLORA_SM80(asm volatile("cp.async.commit_group;" ::: "memory")); }
// Until at most `left` of this thread's latest groups are under way. Others see its copies behind __syncthreads().
template <int left> __device__ inline void cp_async_wait() {
    QLORA_SM80(asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory"));
}

// Four 8 x 8 matrices of 16 bits. Lane 8 m + i names row i of matrix m, 16 bytes at a multiple of 16; lane 4 i + j gets
// elements (i, 2 j) and (i, 2 j + 1) of matrix m in r[m], or (2 j, i) and (2 j + 1, i) when transposed.
template <bool transposed> __device__ inline void ldmatrix(uint32_t (&r)[4], const void* row) {
    if constexpr (transposed)
        QLORA_SM80(asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory"));
    else
        QLORA_SM80(asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory"));
}

// d {16, 8} += a {16, 16} b {16, 8}: factors in bf16, sums in f32, by all lanes of a warp. With i = lane / 4 and
// j = 2 (lane % 4), pairs along the inner dimension: a = (i, j), (i + 8, j), (i, j + 8), (i + 8, j + 8);
// b = (j, i), (j + 8, i); d = (i, j), (i, j + 1), (i + 8, j), (i + 8, j + 1).
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    QLORA_SM80(asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));
}
#undef QLORA_SM80
#endif

}  // namespace cuda
}}  // namespace qlora
