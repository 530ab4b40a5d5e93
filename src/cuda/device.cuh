// device.cuh - the CUDA runtime behind the house's manners: errors are exceptions, memory and streams free themselves,
// one way to launch.
//
// Kernels keep to what the tests can also run without a GPU (tests/cuda-emulation): they are started through launch(),
// get shared memory through QLORA_SHARED, give explicit masks to warp intrinsics, and assume nothing about the order of
// threads.
#pragma once
#include "src/base/error.h"

#include <atomic>
#include <utility>

#ifndef QLORA_CUDA_EMULATION
#include <cuda_runtime.h>
#define QLORA_SHARED(type, name, count) __shared__ type name[count]
#define QLORA_UNROLL _Pragma("unroll")                 // g++ warns of a pragma that it does not know
// as many bytes as the launch asks for
#define QLORA_DYNAMIC_SHARED(type, name)                              \
    extern __shared__ __align__(1024) unsigned char dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(dynamic_shared)
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// What a user can do about an error of the runtime.
inline std::string_view remedy_of(cudaError_t code) {
    switch (code) {
        case cudaErrorMemoryAllocation:
            return "; use a smaller context, batch or rank, or a device with more memory that is free (nvidia-smi "
                   "shows who has it)";
        case cudaErrorInsufficientDriver:
            return "; there is no NVIDIA driver, or it is too old for this program: install a newer one, or use the "
                   "CPU (--device cpu)";
        case cudaErrorNoDevice: return "; nvidia-smi shows what there is; or use the CPU (--device cpu)";
        case cudaErrorNoKernelImageForDevice: case cudaErrorInvalidDeviceFunction:
            return "; this program has no code for the device: build it with CUDA_ARCHS naming it (make CUDA=1), or "
                   "use the CPU (--device cpu)";
        case cudaErrorDevicesUnavailable:
            return "; another process has it for itself: wait for that one, or choose another device (--device cuda:N)";
        case cudaErrorInvalidValue: case cudaErrorNotReady: case cudaErrorInvalidConfiguration: return "";
        case cudaErrorECCUncorrectable: case cudaErrorIllegalAddress: case cudaErrorLaunchTimeout:
        case cudaErrorIllegalInstruction: case cudaErrorMisalignedAddress: case cudaErrorLaunchFailure:
        case cudaErrorUnknown:
            return "; the device is lost to this process: start it again, what was saved is whole";
        default: return "; nvidia-smi shows the state of the device, what was saved is whole";
    }
}

inline void check(cudaError_t code, std::string_view what) {
    if (code == cudaSuccess) return;
    cudaGetLastError();                                // also forget it: the next call must not report this one again
    fail(code == cudaErrorMemoryAllocation ? Errc::memory : Errc::device, "cuda: ", what, ": ",
         cudaGetErrorString(code), remedy_of(code));
}

// A device and an ordered queue of its work.
class Stream {
public:
    explicit Stream(int device) : device_(device) {
        int devices = 0;
        check(cudaGetDeviceCount(&devices), str("device ", device, " asked for"));
        if (device < 0 || device >= devices)
            fail(Errc::device, "cuda: device ", device, " asked for, ", devices, " found, numbered from 0",
                 remedy_of(cudaErrorNoDevice));
        use();
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream");
    }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    cudaStream_t get() const { return stream_; }
    int device() const { return device_; }
    // The current device belongs to the thread: said again wherever one may enter.
    void use() const { check(cudaSetDevice(device_), "choose the device"); }
    // Where something is given back, which goes on when the device is lost.
    void use_at_end() const noexcept {
        if (cudaSetDevice(device_) != cudaSuccess) cudaGetLastError();
    }
    void sync() const { check(cudaStreamSynchronize(stream_), "wait for the device"); }
    int64_t memory_free() const {
        size_t available = 0, total = 0;
        check(cudaMemGetInfo(&available, &total), "ask for free memory");
        return int64_t(available);
    }

    // Copies what `start` asks for into memory of the host and waits; also where a call fails, or a copy would arrive
    // after its target is gone.
    template <class F> void fetch(const F& start) const {
        try {
            start();
            sync();
        } catch (...) {
            cudaStreamSynchronize(stream_);
            cudaGetLastError();
            throw;
        }
    }

private:
    int device_;
    cudaStream_t stream_ = nullptr;
};

// Memory of the device, 256-byte aligned.
class Memory {
public:
    Memory() = default;
    explicit Memory(int64_t bytes) : bytes_(bytes) {
        if (bytes > 0) check(cudaMalloc(&data_, size_t(bytes)), str("allocate ", bytes, " bytes"));
    }
    ~Memory() { if (data_) cudaFree(data_); }
    Memory(Memory&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Memory& operator=(Memory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    template <class T> T* as() const { return static_cast<T*>(data_); }
    int64_t bytes() const { return bytes_; }

    // Both are ordered with the stream's work; download waits until the bytes are there.
    void upload(const Stream& stream, const void* from, int64_t bytes, int64_t offset = 0) {
        within(offset, bytes);
        if (bytes == 0) return;
        check(cudaMemcpyAsync(as<char>() + offset, from, size_t(bytes), cudaMemcpyHostToDevice, stream.get()),
              "copy to the device");
        stream.sync();                                 // the caller may reuse `from` at once
    }
    void download(const Stream& stream, void* to, int64_t bytes, int64_t offset = 0) const {
        within(offset, bytes);
        if (bytes == 0) return;
        stream.fetch([&] {
            check(cudaMemcpyAsync(to, as<char>() + offset, size_t(bytes), cudaMemcpyDeviceToHost, stream.get()),
                  "copy from the device");
        });
    }

private:
    void* data_ = nullptr;
    int64_t bytes_ = 0;
    void within(int64_t offset, int64_t bytes) const {
        if (offset < 0 || bytes < 0 || offset > bytes_ - bytes)
            fail(Errc::argument, "cuda: copy of ", bytes, " bytes at ", offset, " in a buffer of ", bytes_);
    }
};

// A launch in one dimension of blocks (and one of rows): both within what every device allows, or an error.
inline dim3 grid_of(int64_t x, int64_t y = 1) {
    if (x < 1 || x > 0x7fffffff || y < 1 || y > 65535)
        fail(Errc::shape, "cuda: a grid of ", x, " x ", y, " blocks is beyond the device's limits");
    return dim3(unsigned(x), unsigned(y));
}

struct Launch {
    dim3 grid;
    int threads = 256;
    int64_t shared = 0;                                // bytes of QLORA_DYNAMIC_SHARED
};
inline std::atomic<int64_t> launches{0};               // of this process, for tests

#ifndef QLORA_CUDA_EMULATION
template <class... Parameter, class... Argument>
void launch(std::string_view what, void (*kernel)(Parameter...), const Launch& l, const Stream& stream,
            Argument... arguments) {
    if (l.shared > 32 * 1024)    // every kernel may have 48 KiB unasked, what it declares itself included
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(l.shared)), what);
    ++launches;
    kernel<<<l.grid, unsigned(l.threads), size_t(l.shared), stream.get()>>>(Parameter(arguments)...);
    check(cudaGetLastError(), what);
}
#else
template <class... Parameter, class... Argument>
void launch(std::string_view what, void (*kernel)(Parameter...), const Launch& l, const Stream& stream,
            Argument... arguments) {
    ++launches;
    cuda_emulation::launch(l.grid, unsigned(l.threads), size_t(l.shared), stream.get(),
                           [=] { kernel(Parameter(arguments)...); });
    check(cudaGetLastError(), what);
}
#endif

// The upper half of a float, rounded to nearest even; a NaN stays one. Equal to bf16_from_f32 of src/base/half.h bit
// for bit.
__device__ inline uint32_t bf16_bits(float f) {
    const uint32_t u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (u >> 16) | 0x40;
    return (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
}

__device__ inline float warp_sum(float v) {            // the same order of additions in every lane
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

}  // namespace cuda
}}  // namespace qlora
