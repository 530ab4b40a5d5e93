// cuda_runtime_emulation.h - the functions of the CUDA runtime that src/cuda calls: errors, devices, memory, copies.
#pragma once
#include "tests/cuda-emulation/cuda_streams_emulation.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchTimeout = 702,
    cudaErrorIllegalInstruction = 715,
    cudaErrorMisalignedAddress = 716,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorUnknown = 999
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4
};
using cudaStream_t = cuda_emulation::Queue*;

namespace cuda_emulation {

inline int devices = 1;
inline cudaError_t next_error = cudaSuccess;           // the next call reports this instead of doing its work
inline int64_t fail_after = -1;                        // that many calls that may fail succeed, then one fails:
inline cudaError_t fail_with = cudaErrorMemoryAllocation;
inline cudaError_t last_error = cudaSuccess;
inline int live_allocations = 0, live_streams = 0, live_events = 0, live_graphs = 0;
inline int64_t launches_done = 0, copies_done = 0, bytes_to_host = 0;  // the last: copied to pageable memory
// cudaFree() and cudaFreeHost() wait for all work, as those of CUDA do. Without, work that uses freed memory fails.
inline bool free_waits = true;
inline int64_t frees_that_waited = 0;

inline cudaError_t failed(cudaError_t code) {
    if (code != cudaSuccess) last_error = code;
    return code;
}
inline cudaError_t take_error() {
    cudaError_t code = std::exchange(next_error, cudaSuccess);
    if (fail_after >= 0 && fail_after-- == 0) code = fail_with;
    return failed(code);
}
inline Queue& queue_of(cudaStream_t stream) { return stream ? *stream : streams().first; }

// For what may not be called during a capture, by its thread or by any: the capture is lost.
inline bool breaks_capture() {
    bool any = false;
    for (Queue* q : streams().all)
        if (q->capture && (q->capture->thread == std::thread::id() || q->capture->thread == std::this_thread::get_id()))
            any = q->capture->is_broken = true;
    return any;
}

struct Locked {
    std::lock_guard<std::recursive_mutex> lock{streams().mutex};
};

}  // namespace cuda_emulation

inline const char* cudaGetErrorString(cudaError_t code) {
    switch (code) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorNotReady: return "device not ready";
        case cudaErrorNotSupported: return "operation not supported";
        case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
        case cudaErrorStreamCaptureInvalidated:
            return "operation failed due to a previous error during capture";
        case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
        case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
        default: return "unspecified launch failure";
    }
}
inline cudaError_t cudaGetLastError() { return std::exchange(cuda_emulation::last_error, cudaSuccess); }
inline cudaError_t cudaPeekAtLastError() { return cuda_emulation::last_error; }

// ---- Devices.
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = cuda_emulation::devices;
    return cuda_emulation::devices ? cuda_emulation::take_error() : cudaErrorNoDevice;
}
inline cudaError_t cudaSetDevice(int) { return cuda_emulation::take_error(); }
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cuda_emulation::take_error();
}
struct cudaDeviceProp {
    char name[256] = "emulation";
    int multiProcessorCount = 2, major = 9, minor = 0;
};
namespace cuda_emulation { inline cudaDeviceProp properties; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    *p = cuda_emulation::properties;
    return cuda_emulation::take_error();
}
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrConcurrentManagedAccess = 89,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const cudaDeviceProp& p = cuda_emulation::properties;
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
        case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
        case cudaDevAttrConcurrentManagedAccess: *value = cuda_emulation::memory().concurrent; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(cuda_emulation::most_shared); break;
    }
    return cuda_emulation::take_error();
}
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
struct cudaFuncAttributes { int numRegs = 0; };
template <class... P> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, void (*)(P...)) {
    *of = {};
    return cuda_emulation::take_error();
}
template <class... P> cudaError_t cudaFuncSetAttribute(void (*)(P...), cudaFuncAttribute which, int value) {
    if (which == cudaFuncAttributeMaxDynamicSharedMemorySize && size_t(value) > cuda_emulation::most_shared)
        return cuda_emulation::failed(cudaErrorInvalidValue);
    return cuda_emulation::take_error();
}
template <class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(P...), int threads, size_t shared) {
    *blocks = int(std::min<size_t>(2048 / size_t(threads), cuda_emulation::most_shared / (shared + 1024)));
    return cuda_emulation::take_error();
}

// ---- Memory.
namespace cuda_emulation {

inline cudaError_t allocate(void** data, size_t bytes, Kind kind) {
    const Locked locked;
    *data = nullptr;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t code = take_error()) return code;
    if (bytes == 0) return cudaSuccess;
    *data = memory().take(bytes, kind);
    if (!*data) return failed(cudaErrorMemoryAllocation);
    ++live_allocations;
    return cudaSuccess;
}
inline std::map<const char*, size_t>& pinned() {       // by first byte
    static auto* const all = new std::map<const char*, size_t>;
    return *all;
}
inline Kind kind_of(const void* p) {
    if (const Allocation* a = memory().find(p)) return a->kind;
    const auto after = pinned().upper_bound(static_cast<const char*>(p));
    if (after == pinned().begin()) return Kind::pageable;
    const auto& [first, bytes] = *std::prev(after);
    return static_cast<const char*>(p) < first + bytes ? Kind::pinned : Kind::pageable;
}
// What is left of the allocation from p on; memory of the host that nobody announced is not known.
inline bool fits(const void* p, size_t bytes) {
    const Allocation* a = memory().find(p);
    if (a) return size_t(a->data + a->bytes - static_cast<const char*>(p)) >= bytes;
    return !memory().in_region(p);
}
inline void wait_before_free() {
    if (!free_waits || !streams().any()) return;
    ++frees_that_waited;
    Streams::quietly([] { streams().finish_all(); });
}

}  // namespace cuda_emulation

inline cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    const auto& m = cuda_emulation::memory();
    *total = m.capacity;
    *available = m.available();
    return cuda_emulation::take_error();
}
inline cudaError_t cudaMalloc(void** data, size_t bytes) {
    return cuda_emulation::allocate(data, bytes, cuda_emulation::Kind::device);
}
inline cudaError_t cudaFree(void* data) {
    using namespace cuda_emulation;
    const Locked locked;
    if (!data) return cudaSuccess;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    wait_before_free();
    if (!memory().give(data)) {
        Streams::quietly([] { throw Failure("cudaFree() of what is not allocated"); });
        return failed(cudaErrorInvalidValue);
    }
    --live_allocations;
    return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** data, size_t bytes) {
    using namespace cuda_emulation;
    const Locked locked;
    *data = nullptr;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t code = take_error()) return code;
    size_t so_far = 0;
    for (const auto& [first, size] : pinned()) so_far += size;
    if (bytes > memory().pinnable || so_far > memory().pinnable - bytes) return failed(cudaErrorMemoryAllocation);
    if (posix_memalign(data, 4096, std::max<size_t>(bytes, 1)) != 0) return failed(cudaErrorMemoryAllocation);
    std::memset(*data, poison, std::min<size_t>(bytes, 64 << 10));    // of much more, the rest would only cost time
    pinned()[static_cast<char*>(*data)] = bytes;
    ++live_allocations;
    return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* data) {
    using namespace cuda_emulation;
    const Locked locked;
    if (!data) return cudaSuccess;
    wait_before_free();
    if (pinned().erase(static_cast<char*>(data)) == 0) {
        Streams::quietly([] { throw Failure("cudaFreeHost() of what is not allocated"); });
        return failed(cudaErrorInvalidValue);
    }
    std::free(data);
    --live_allocations;
    return cudaSuccess;
}

#include "tests/cuda-emulation/cuda_managed_emulation.h"
#include "tests/cuda-emulation/cuda_queue_emulation.h"
#include "tests/cuda-emulation/cuda_graphs_emulation.h"
