// cuda_managed_emulation.h - managed memory: allocation, prefetches, advice. Part of cuda_runtime_emulation.h.
#pragma once

enum cudaMemLocationType {
    cudaMemLocationTypeInvalid = 0,
    cudaMemLocationTypeDevice = 1,
    cudaMemLocationTypeHost = 2
};
struct cudaMemLocation {
    cudaMemLocationType type = cudaMemLocationTypeInvalid;
    int id = 0;
};
enum cudaMemoryAdvise {
    cudaMemAdviseSetReadMostly = 1,
    cudaMemAdviseUnsetReadMostly = 2,
    cudaMemAdviseSetPreferredLocation = 3,
    cudaMemAdviseUnsetPreferredLocation = 4,
    cudaMemAdviseSetAccessedBy = 5,
    cudaMemAdviseUnsetAccessedBy = 6
};
constexpr int cudaCpuDeviceId = -1;
constexpr unsigned cudaMemAttachGlobal = 1;

inline cudaError_t cudaMallocManaged(void** data, size_t bytes, unsigned = cudaMemAttachGlobal) {
    return cuda_emulation::allocate(data, bytes, cuda_emulation::Kind::managed);
}
inline cudaError_t cudaMemPrefetchAsync(const void* p, size_t bytes, cudaMemLocation to, unsigned flags,
                                        cudaStream_t stream = nullptr) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    if (kind_of(p) != Kind::managed || !fits(p, bytes) || flags) return failed(cudaErrorInvalidValue);
    if (!memory().concurrent) return failed(cudaErrorInvalidDevice);
    const bool to_device = to.type == cudaMemLocationTypeDevice;
    streams().add(queue_of(stream), [=] { memory().move(p, bytes, to_device, false); });
    return cudaSuccess;
}
inline cudaError_t cudaMemAdvise(const void* p, size_t bytes, cudaMemoryAdvise, cudaMemLocation) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    return kind_of(p) == Kind::managed && fits(p, bytes) ? cudaSuccess : failed(cudaErrorInvalidValue);
}
// as CUDA 12 has them
inline cudaError_t cudaMemPrefetchAsync(const void* p, size_t bytes, int device, cudaStream_t stream = nullptr) {
    const auto type = device == cudaCpuDeviceId ? cudaMemLocationTypeHost : cudaMemLocationTypeDevice;
    return cudaMemPrefetchAsync(p, bytes, cudaMemLocation{type, device}, 0, stream);
}
inline cudaError_t cudaMemAdvise(const void* p, size_t bytes, cudaMemoryAdvise advice, int) {
    return cudaMemAdvise(p, bytes, advice, cudaMemLocation{});
}
