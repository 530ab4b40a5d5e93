// hopper.cuh - instructions that only sm_90a has, as functions: bulk copies of boxes of a matrix into shared memory,
// mbarriers that count them, products of 64 x 8 n x 16 by warpgroups (128 threads), registers that move between them.
// On other architectures they trap.
//
// The tests run the same names on a CPU (tests/cuda-emulation/cuda_hopper_emulation.h).
#pragma once
#include "src/cuda/mma.cuh"

#ifndef QLORA_CUDA_EMULATION
#include <cuda.h>
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

#ifdef QLORA_CUDA_EMULATION
constexpr bool has_sm90a = true;
using cuda_emulation::bulk_copy;
using cuda_emulation::has_tensor_maps;
using cuda_emulation::is_for_sm90a;
using cuda_emulation::matrix_at;
using cuda_emulation::mbarrier_arrive;
using cuda_emulation::mbarrier_expect;
using cuda_emulation::mbarrier_fence_init;
using cuda_emulation::mbarrier_init;
using cuda_emulation::mbarrier_wait;
using cuda_emulation::registers_give;
using cuda_emulation::registers_take;
using cuda_emulation::tensor_map;
using cuda_emulation::TensorMap;
using cuda_emulation::tie_sums;
using cuda_emulation::wgmma;
using cuda_emulation::wgmma_commit;
using cuda_emulation::wgmma_fence;
using cuda_emulation::wgmma_wait;
#else
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool has_sm90a = true;
#define QLORA_SM90A(...) __VA_ARGS__
#else
constexpr bool has_sm90a = false;                      // what is compiled now is for another device
#define QLORA_SM90A(...) __trap()
#endif

// ---- mbarriers: a phase is over when all have arrived and all bytes that they announced are there.
__device__ inline void mbarrier_init(uint64_t* b, int arrivals) {
    QLORA_SM90A(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                ::"r"(shared_address(b)), "r"(arrivals) : "memory"));
}
// After the inits, by the thread that did them; the others and the copies see them behind __syncthreads().
__device__ inline void mbarrier_fence_init() {
    QLORA_SM90A(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}
__device__ inline void mbarrier_arrive(uint64_t* b) {
    QLORA_SM90A(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory"));
}
// Arrives and announces bytes.
__device__ inline void mbarrier_expect(uint64_t* b, int bytes) {
    QLORA_SM90A(asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                ::"r"(shared_address(b)), "r"(bytes) : "memory"));
}
// Until the latest phase of this parity is over: the first phase has parity 0; at once with 1 before that.
__device__ inline void mbarrier_wait(uint64_t* b, int parity) {
    QLORA_SM90A(asm volatile("{\n"
                ".reg .pred over;\n"
                "again:\n"
                "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                "@!over bra again;\n"
                "}" ::"r"(shared_address(b)), "r"(parity) : "memory"));
}

// ---- Bulk copies. A map describes a matrix of bf16 in global memory and the box that a copy takes: 64 elements of
// `box_lines` lines. In shared memory, at a multiple of 1024 bytes, a line has 128, chunk c of line r at c ^ (r & 7);
// zeros beyond the matrix.
using TensorMap = CUtensorMap;

// The driver's function: found at run time, so that programs also start where there is no driver.
inline decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
    static const auto encoder = [] {
        void* f = nullptr;
        cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
        const cudaError_t code =
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
#else
        const cudaError_t code = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &f, cudaEnableDefault, &found);
#endif
        const bool works = code == cudaSuccess && found == cudaDriverEntryPointSuccess;
        if (code != cudaSuccess) cudaGetLastError();
        return works ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(f) : nullptr;
    }();
    return encoder;
}
inline bool has_tensor_maps() { return tensor_map_encoder() != nullptr; }

// Data at a multiple of 16 bytes, lines a multiple of 16 bytes apart, at most 256 lines in a box.
inline TensorMap tensor_map(const uint16_t* data, int64_t lines, int64_t line, int64_t ld, int box_lines) {
    const cuuint64_t size[2] = {cuuint64_t(line), cuuint64_t(lines)}, apart[1] = {cuuint64_t(ld) * 2};
    const cuuint32_t box[2] = {64, cuuint32_t(box_lines)}, every[2] = {1, 1};
    TensorMap map;
    const CUresult code = tensor_map_encoder()(
        &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<uint16_t*>(data), size, apart, box, every,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS)
        fail(Errc::device, "cuda: describe a matrix of ", lines, " x ", line, ": driver error ", int(code));
    return map;
}

// Starts the copy of the box at (row, col); its bytes count at `arrived`. The map is a __grid_constant__ parameter.
__device__ inline void bulk_copy(void* to, const TensorMap& map, int col, int row, uint64_t* arrived) {
    QLORA_SM90A(asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                "[%0], [%1, {%2, %3}], [%4];"
                ::"r"(shared_address(to)), "l"(reinterpret_cast<uint64_t>(&map)), "r"(col), "r"(row),
                "r"(shared_address(arrived)) : "memory"));
}

// ---- Registers of every thread of a warpgroup: those that one gives, others take, and wait for.
template <int count> __device__ inline void registers_give() {
    QLORA_SM90A(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count)));
}
template <int count> __device__ inline void registers_take() {
    QLORA_SM90A(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count)));
}
// Whether the code that the current device would run of a kernel is the one for sm_90a. `kernel` keeps more than 128
// registers there; where it only traps, it has few.
template <class... Parameter> bool is_for_sm90a(void (*kernel)(Parameter...)) {
    cudaFuncAttributes of{};
    const cudaError_t code = cudaFuncGetAttributes(&of, kernel);
    if (code != cudaSuccess) cudaGetLastError();
    return code == cudaSuccess && of.numRegs > 128;
}

// ---- Products of a warpgroup.
// Describes lines of 128 bytes in shared memory, as bulk copies leave them. Along the inner dimension: groups of 8
// lines are `groups` bytes apart. Across: lines of the inner dimension, in groups as before, and panels of 64 of the
// outer dimension `panels` bytes apart.
__device__ inline uint64_t matrix_at(const void* start, int panels, int groups) {
    return uint64_t((shared_address(start) & 0x3ffff) >> 4) | uint64_t(panels >> 4) << 16 |
           uint64_t(groups >> 4) << 32 | uint64_t(1) << 62;
}
// Before the first product on registers that the thread has written.
__device__ inline void wgmma_fence() { QLORA_SM90A(asm volatile("wgmma.fence.sync.aligned;" ::: "memory")); }
// What was started since the last commit is a group.
__device__ inline void wgmma_commit() {
    QLORA_SM90A(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}
// Until at most `left` of the latest groups are under way.
template <int left> __device__ inline void wgmma_wait() {
    QLORA_SM90A(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory"));
}
// The compiler does not know that products write registers until they are waited for: tied to this place in the
// program, sums are neither made after it nor used before it. Before the first fence, and after the last wait.
template <int n> __device__ inline void tie_sums(float (&d)[n][4]) {
    QLORA_UNROLL
    for (int j = 0; j < n; ++j)
        asm volatile("" : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])::"memory");
}

#define QLORA_FIVE(t, a, b, c, d, e) "%" #t #a ", %" #t #b ", %" #t #c ", %" #t #d ", %" #t #e ", "
#define QLORA_TEN(t) QLORA_FIVE(t, 0, 1, 2, 3, 4) QLORA_FIVE(t, 5, 6, 7, 8, 9)
#define QLORA_FOUR(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define QLORA_SIXTEEN(j) QLORA_FOUR(j), QLORA_FOUR(j + 1), QLORA_FOUR(j + 2), QLORA_FOUR(j + 3)

// Starts d {64, 8 n} += a {64, 16} b {16, 8 n}, all in shared memory but d: thread t has of columns 8 j to 8 j + 7 what
// a thread of mma_bf16() has, of rows 16 (t / 32) on. A lies along the inner dimension, b along or across it.
template <bool b_across> __device__ inline void wgmma(float (&d)[32][4], uint64_t a, uint64_t b) {
    QLORA_SM90A(asm volatile("{\n"
                ".reg .pred add;\n"
                "setp.ne.b32 add, %130, 0;\n"
                "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
                QLORA_TEN() QLORA_TEN(1) QLORA_TEN(2) QLORA_TEN(3) QLORA_TEN(4) QLORA_TEN(5) QLORA_TEN(6) QLORA_TEN(7)
                QLORA_TEN(8) QLORA_TEN(9) QLORA_TEN(10) QLORA_TEN(11)
                "%120, %121, %122, %123, %124, %125, %126, %127}, %128, %129, add, 1, 1, 0, %131;\n"
                "}"
                : QLORA_SIXTEEN(0), QLORA_SIXTEEN(4), QLORA_SIXTEEN(8), QLORA_SIXTEEN(12), QLORA_SIXTEEN(16),
                  QLORA_SIXTEEN(20), QLORA_SIXTEEN(24), QLORA_SIXTEEN(28)
                : "l"(a), "l"(b), "r"(1), "n"(int(b_across)) : "memory"));
}
template <bool b_across> __device__ inline void wgmma(float (&d)[16][4], uint64_t a, uint64_t b) {
    QLORA_SM90A(asm volatile("{\n"
                ".reg .pred add;\n"
                "setp.ne.b32 add, %66, 0;\n"
                "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                QLORA_TEN() QLORA_TEN(1) QLORA_TEN(2) QLORA_TEN(3) QLORA_TEN(4) QLORA_TEN(5)
                "%60, %61, %62, %63}, %64, %65, add, 1, 1, 0, %67;\n"
                "}"
                : QLORA_SIXTEEN(0), QLORA_SIXTEEN(4), QLORA_SIXTEEN(8), QLORA_SIXTEEN(12)
                : "l"(a), "l"(b), "r"(1), "n"(int(b_across)) : "memory"));
}
#undef QLORA_SIXTEEN
#undef QLORA_FOUR
#undef QLORA_TEN
#undef QLORA_FIVE
#undef QLORA_SM90A
#endif

}  // namespace cuda
}}  // namespace qlora
