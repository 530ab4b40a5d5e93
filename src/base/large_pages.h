// large_pages.h - an allocator for arrays that are read from end to end: in large pages, where the system has them.
#pragma once
#include "qlora.h"

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace qlora { inline namespace QLORA_ABI {

// Reading NF4 weights for one token was 10 to 20 % faster in them (two Zen 4 cores): prefetchers stop at the end of a
// page. An array that is shorter than one has ordinary memory.
template <class T>
struct LargePages {
    using value_type = T;
    static constexpr size_t page = size_t(2) << 20;

    LargePages() = default;
    template <class U>
    LargePages(const LargePages<U>&) {}

    T* allocate(size_t n) {
        if (n > size_t(-1) / sizeof(T)) throw std::bad_array_new_length();
        const size_t bytes = n * sizeof(T);
        void* at = ::operator new(bytes, alignment(n));
#if defined(__linux__)
        if (bytes >= page) (void)::madvise(at, bytes / page * page, MADV_HUGEPAGE);    // a wish
#endif
        return static_cast<T*>(at);
    }
    void deallocate(T* at, size_t n) { ::operator delete(at, alignment(n)); }
    bool operator==(const LargePages&) const = default;
private:
    static std::align_val_t alignment(size_t n) { return std::align_val_t(n * sizeof(T) >= page ? page : 64); }
};

}}  // namespace qlora
