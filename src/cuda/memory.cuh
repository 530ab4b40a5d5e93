// memory.cuh - buffers of a CUDA backend and stored weights on the device.
//
// A weight goes up once, from where it lies (a mapped file, usually), piece by piece through pinned memory; the host's
// copy is then the caller's to drop. Its way back is Held::download().
#pragma once
#include "src/cuda/device.cuh"
#include "src/graph/backend.h"

#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// Bytes on their way from the host: pinned memory of a fixed size, used in turn. A copy that fits needs no wait, the
// caller may reuse its source at once; when the end is reached, what was sent before is waited for.
class Staging {
public:
    static constexpr int64_t size = int64_t(8) << 20;
    Staging() {
        void* p = nullptr;
        check(cudaMallocHost(&p, size_t(size)), "allocate pinned memory");
        data_ = static_cast<char*>(p);
    }
    ~Staging() { cudaFreeHost(data_); }
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    void send(const Stream& stream, void* to, const void* from, int64_t bytes) {
        const char* source = static_cast<const char*>(from);
        char* target = static_cast<char*>(to);
        while (bytes > 0) {
            if (used_ == size) {
                stream.sync();
                used_ = 0;
            }
            const int64_t piece = bytes < size - used_ ? bytes : size - used_;
            std::memcpy(data_ + used_, source, size_t(piece));
            check(cudaMemcpyAsync(target, data_ + used_, size_t(piece), cudaMemcpyDefault, stream.get()),
                  "copy to the device");
            used_ += piece;
            if (used_ < size && used_ % 64) used_ = (used_ + 63) / 64 * 64;
            source += piece;
            target += piece;
            bytes -= piece;
        }
    }

private:
    char* data_ = nullptr;
    int64_t used_ = 0;                                 // a multiple of 64
};

// A weight on the device: codes, scales and maps.
struct HeldWeight final : Held {
    std::shared_ptr<Stream> stream;                    // of the backend, which may be gone by then
    Weight on_device;
    Weight download() const override;
};

inline Weight HeldWeight::download() const {
    stream->use();
    return moved(on_device, [&](const void* from, int64_t bytes) {
        auto copy = std::make_shared<std::vector<uint64_t>>(size_t(bytes + 7) / 8);
        stream->fetch([&] {
            check(cudaMemcpyAsync(copy->data(), from, size_t(bytes), cudaMemcpyDeviceToHost, stream->get()),
                  "copy a weight from the device");
        });
        return std::shared_ptr<const void>(copy, copy->data());
    });
}

}  // namespace cuda
}}  // namespace qlora
