// memory_limit.h - how much memory a backend has given out, and the most that it may (Backend::limit_memory).
#pragma once
#include "src/base/error.h"

#include <algorithm>
#include <atomic>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {

class MemoryLimit : public std::enable_shared_from_this<MemoryLimit> {
public:
    static constexpr int64_t none = std::numeric_limits<int64_t>::max();
    void set(int64_t bytes) { most_ = bytes > 0 ? bytes : none; }
    int64_t used() const { return used_; }
    int64_t left() const { return most_ == none ? none : std::max<int64_t>(0, most_ - used_); }
    // So many bytes count as used until the result is gone. Error{memory} where they are too many.
    std::shared_ptr<const void> take(int64_t bytes, const char* who) {
        auto taken = std::make_shared<Taken>(shared_from_this());
        const int64_t before = used_.fetch_add(bytes), most = most_;
        taken->bytes = bytes;                          // from here on it gives them back
        if (bytes > most - before)
            fail(Errc::memory, who, ": ", bytes, " bytes of memory are needed, ", before,
                 " are in use and the limit is ", most,
                 " (Backend::limit_memory); raise it, or use a smaller model, context, batch or rank");
        return taken;
    }
private:
    struct Taken {                                     // buffers may outlive their backend, so it keeps the count
        explicit Taken(std::shared_ptr<MemoryLimit> limit) : of(std::move(limit)) {}
        Taken(const Taken&) = delete;
        ~Taken() { of->used_ -= bytes; }
        std::shared_ptr<MemoryLimit> of;
        int64_t bytes = 0;
    };
    std::atomic<int64_t> used_{0}, most_{none};
};

}}  // namespace qlora
