// cuda_runtime_emulation.h - the few functions of the CUDA runtime that src/cuda calls, on host memory. Work is done at
// once.
#pragma once
#include "tests/cuda-emulation/cuda_launch.h"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNoDevice = 100,
    cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDefault = 4 };
constexpr unsigned cudaStreamNonBlocking = 1;
using cudaStream_t = struct EmulatedStream*;

namespace cuda_emulation {

inline int devices = 1;
inline cudaError_t next_error = cudaSuccess;           // the next call reports this instead of doing its work
inline cudaError_t last_error = cudaSuccess;
inline int live_allocations = 0;

inline cudaError_t take_error() {
    const cudaError_t code = std::exchange(next_error, cudaSuccess);
    if (code != cudaSuccess) last_error = code;
    return code;
}

}  // namespace cuda_emulation

inline const char* cudaGetErrorString(cudaError_t code) {
    switch (code) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        default: return "unspecified launch failure";
    }
}
inline cudaError_t cudaGetLastError() { return std::exchange(cuda_emulation::last_error, cudaSuccess); }
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = cuda_emulation::devices;
    return cuda_emulation::devices ? cuda_emulation::take_error() : cudaErrorNoDevice;
}
inline cudaError_t cudaSetDevice(int) { return cuda_emulation::take_error(); }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = nullptr;
    return cuda_emulation::take_error();
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cuda_emulation::take_error(); }
inline cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    *available = *total = size_t(1) << 30;
    return cuda_emulation::take_error();
}
inline cudaError_t cudaMalloc(void** data, size_t bytes) {
    if (const cudaError_t code = cuda_emulation::take_error()) return code;
    *data = nullptr;
    if (posix_memalign(data, 256, bytes) != 0) return cudaErrorMemoryAllocation;
    std::memset(*data, 0xFF, bytes);
    ++cuda_emulation::live_allocations;
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* data) {
    std::free(data);
    --cuda_emulation::live_allocations;
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    if (const cudaError_t code = cuda_emulation::take_error()) return code;
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** data, size_t bytes) { return cudaMalloc(data, bytes); }
inline cudaError_t cudaFreeHost(void* data) { return cudaFree(data); }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    if (const cudaError_t code = cuda_emulation::take_error()) return code;
    std::memset(to, value, bytes);
    return cudaSuccess;
}
struct cudaDeviceProp {
    char name[256] = "emulation";
    int multiProcessorCount = 2, major = 9, minor = 0;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    *p = {};
    return cuda_emulation::take_error();
}

namespace cuda_emulation {
inline void launch(dim3 grid, unsigned threads, size_t shared, cudaStream_t, const std::function<void()>& body) {
    run(grid, threads, shared, body);
}
}  // namespace cuda_emulation

using cudaGraph_t = void*;
using cudaGraphExec_t = void*;
constexpr int cudaStreamCaptureModeThreadLocal = 1;
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) { return cudaErrorNoDevice; }
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return cudaErrorNoDevice; }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, int) { return cudaErrorNoDevice; }
inline cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaErrorNoDevice; }
