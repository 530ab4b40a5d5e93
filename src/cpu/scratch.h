// scratch.h - memory of one thread that only grows and is used again by the next call.
#pragma once
#include "qlora.h"

#include <new>

namespace qlora { inline namespace QLORA_ABI {

class Scratch {
public:
    // Aligned to a cache line; contents undefined.
    void* bytes(int64_t count) {
        if (count > size_) {
            void* larger = ::operator new(size_t(count), std::align_val_t(64));
            if (memory_) ::operator delete(memory_, std::align_val_t(64));
            memory_ = larger;
            size_ = count;
        }
        return memory_;
    }
    float* floats(int64_t count) { return static_cast<float*>(bytes(count * int64_t(sizeof(float)))); }
    ~Scratch() {
        if (memory_) ::operator delete(memory_, std::align_val_t(64));
    }
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
private:
    void* memory_ = nullptr;
    int64_t size_ = 0;
};

}}  // namespace qlora
