// room.cuh - what the rooms of the wing share: the device of a call, its sources as values, loops over elements and
// rows, and how a kernel reports what it cannot throw.
//
// A room src/cuda/<room>.cuh is the twin of src/ops/<room>.cpp: it defines `inline const Kernel <op>_cuda{run, ...}`
// for each of its operations, whose scratch is in plan/table.h. run() only starts work on the device's stream; it never
// waits and never reads device memory. The order of every sum depends on shapes alone: no atomics on floats.
#pragma once
#include "src/cpu/cpu.h"
#include "src/cuda/plan/table.h"
#include "src/cuda/values.cuh"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

#define QLORA_LEAF(name, room)
#define QLORA_OP(name, room) extern const Kernel name##_cuda;
#include "src/graph/ops.def"

namespace cuda {

// What a kernel found wrong: the first of a run, read with the next download() and thrown there.
enum FaultKind : int32_t { no_fault, wrong_index, wrong_number };
struct Fault {
    int32_t found = no_fault, op = 0;                  // op: of enum class Op
    int64_t row = 0, value = 0, limit = 0;             // an index of that row that is outside of [0, limit)
    float number = 0;                                  // or a number of that row that the type cannot hold
    int32_t type = 0;                                  // of enum class DType
};
// From any thread: one of the faults of a run stays. atomicCAS, so that it is one and not parts of two.
__device__ inline void report(Fault* fault, const Fault& what) {
    if (atomicCAS(&fault->found, int32_t(no_fault), what.found) != no_fault) return;
    fault->op = what.op, fault->row = what.row, fault->value = what.value, fault->limit = what.limit;
    fault->number = what.number, fault->type = what.type;
}

// A stream for copies beside kernels, and what it and the other wait for (apart.cuh).
struct Aside {
    explicit Aside(int number) : stream(number) {
        try {
            for (cudaEvent_t* e : {&begun, &ended})
                check(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "create an event");
        } catch (...) {
            clear();
            throw;
        }
    }
    ~Aside() { clear(); }
    void clear() {
        stream.use_at_end();
        cudaStreamSynchronize(stream.get());
        for (const cudaEvent_t e : {begun, ended})
            if (e) cudaEventDestroy(e);
    }
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;
    Stream stream;
    cudaEvent_t begun = nullptr, ended = nullptr;
};

// What rooms need of the backend.
struct Device : Planning {
    explicit Device(int number) : queue(std::make_shared<Stream>(number)), stream(*queue), aside(number) {}
    const std::shared_ptr<Stream> queue;               // weights on the device outlive the backend, and keep it
    const Stream& stream;
    const Aside aside;
    int multiprocessors = 1;
    Fault* fault = nullptr;                            // on the device
    mutable WorkCount counted;                         // rooms of products add what they start
};
inline const Device& device_of(const Call& call) { return static_cast<const Device&>(call.backend); }
inline const Stream& stream_of(const Call& call) { return device_of(call).stream; }

// Source i, which must be there and no stored weight; what i32 sources hold comes from call.in<int32_t>(i).
inline Values values(const Call& call, int i) { return {call.src[i], call.source(i).storage}; }
inline Places places(const Call& call) { return {call.out, call.node.storage}; }
// Source i, one of those that OpDef::writes names.
inline Places written(const Call& call, int i) { return {call.written<void>(i), call.source(i).storage}; }

// Blocks for `count` items, `per_block` each: as many as the device runs at once eight times over, each of which walks
// on by the grid's size.
inline dim3 grid_for(const Call& call, int64_t count, int64_t per_block) {
    const int64_t most = int64_t(device_of(call).multiprocessors) * 8;
    return grid_of(std::clamp<int64_t>((count + per_block - 1) / per_block, 1, most));
}

// f(i) for every i in [0, count); F is a struct of values with `__device__ void operator()(int64_t) const`. Nothing
// where `live` is there and 0.
template <class F> __global__ void each_kernel(int64_t count, const int32_t* live, F f) {
    if (live && *live == 0) return;
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) f(i);
}
template <class F> void each(const Call& call, int64_t count, const F& f, const int32_t* live = nullptr) {
    constexpr int threads = 256;
    if (count <= 0) return;
    launch(op_def(call.node.op).name, each_kernel<F>, {grid_for(call, count, threads), threads}, stream_of(call), count,
           live, f);
}

// The sum of a block's values in every one of its threads; blockDim.x is a multiple of 32. The same order of additions
// in every run: lanes pairwise, then warps in order.
__device__ inline float block_sum(float v) {
    QLORA_SHARED(float, parts, 32);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
    v = warp_sum(v);
    __syncthreads();                                   // parts may still be read by the sum before
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += parts[w];
    return sum;
}

// Checks indices before a kernel follows them: the first one outside of [low, limit) becomes the run's fault, unless
// there is one. One block, so that "first" is certain.
static __global__ void check_indices(const int32_t* indices, int64_t count, int64_t low, int64_t limit, int op,
                                     Fault* fault) {
    QLORA_SHARED(int64_t, first, 256);
    int64_t mine = count;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x)
        if ((indices[i] < low || indices[i] >= limit) && i < mine) mine = i;
    first[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x != 0 || fault->found) return;
    for (unsigned t = 0; t < blockDim.x; ++t)
        if (first[t] < mine) mine = first[t];
    if (mine == count) return;
    *fault = {wrong_index, op, mine, indices[mine], limit};
}
// Kernels behind it must not follow an index that it refuses: they clamp.
inline void check_rows(const Call& call, const int32_t* indices, int64_t count, int64_t low, int64_t limit) {
    launch("check indices", check_indices, {grid_of(1), 256}, stream_of(call), indices, count, low, limit,
           int(call.node.op), device_of(call).fault);
}

}  // namespace cuda
}}  // namespace qlora
