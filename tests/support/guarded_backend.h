// guarded_backend.h - the CPU as a backend whose memory nobody else can touch: results, states, factors and stored
// weights lie in pages that are inaccessible (mprotect) except while the backend itself is at work. Host code that
// follows one of its pointers ends by SIGSEGV, as it would read nonsense from a device.
#pragma once
#include "tests/support/over_cpu.h"

#include <sys/mman.h>

#include <cstring>
#include <mutex>

namespace guarded {

using namespace qlora;

// Addresses for everything: memory comes when it is touched. Nothing is used twice, so fresh memory is zero.
class Region {
public:
    Region() : base_(static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                                             0))) {
        if (base_ == MAP_FAILED) fail(Errc::memory, "guarded: no addresses");
    }
    ~Region() { munmap(base_, size_); }
    void* take(int64_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const size_t at = used_;
        used_ += size_t(bytes + 63) / 64 * 64;
        if (used_ > size_) fail(Errc::memory, "guarded: ", bytes, " bytes do not fit any more");
        return base_ + at;
    }
    void open() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (++opened_ == 1) protect(PROT_READ | PROT_WRITE);
    }
    void close() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--opened_ == 0) protect(PROT_NONE);
    }
private:
    void protect(int how) {
        if (mprotect(base_, size_, how) != 0) fail(Errc::io, "guarded: mprotect refuses");
    }
    static constexpr size_t size_ = size_t(1) << 32;
    char* base_;
    size_t used_ = 0;
    int opened_ = 0;
    std::mutex mutex_;
};

struct Open {
    explicit Open(Region& r) : region(r) { region.open(); }
    ~Open() { region.close(); }
    Region& region;
};

// A weight in the region: codes, scales and maps.
struct HeldWeight final : Held {
    std::shared_ptr<Region> region;
    Weight in_region;
    Weight download() const override {
        const Open open(*region);
        return moved(in_region, [](const void* from, int64_t bytes) {
            auto owner = std::make_shared<std::vector<uint64_t>>(size_t(bytes + 7) / 8);
            std::memcpy(owner->data(), from, size_t(bytes));
            return std::shared_ptr<const void>(owner, owner->data());
        });
    }
};

class GuardedBackend final : public over_cpu::OverCpu {
public:
    using OverCpu::OverCpu;
    BufferRef allocate(int64_t bytes, Memory) override {
        return std::make_shared<Buffer>(Buffer{region_->take(bytes), bytes, region_});
    }
    void zero(Buffer& at, int64_t offset, int64_t bytes) override {
        const Open open(*region_);
        inner->zero(at, offset, bytes);
    }
    void copy(const Buffer& from, int64_t from_offset, Buffer& to, int64_t to_offset, int64_t bytes) override {
        const Open open(*region_);
        inner->copy(from, from_offset, to, to_offset, bytes);
    }
    void upload(Buffer& to, int64_t offset, const void* from, int64_t bytes) override {
        const Open open(*region_);
        inner->upload(to, offset, from, bytes);
    }
    void download(const Buffer& from, int64_t offset, void* to, int64_t bytes) override {
        const Open open(*region_);
        inner->download(from, offset, to, bytes);
    }
    WeightPtr hold(WeightPtr w, Placement) override {
        if (w->held) return w;
        const Open open(*region_);
        auto held = std::make_shared<HeldWeight>();
        held->region = region_;
        held->in_region = moved(*w, [&](const void* from, int64_t bytes) {
            void* const to = region_->take(bytes);
            std::memcpy(to, from, size_t(bytes));
            return std::shared_ptr<const void>(region_, to);
        });
        w->check();
        Weight out = held->in_region;
        out.held = held;
        return std::make_shared<const Weight>(std::move(out));
    }
    void run(GraphImpl& g, const Plan& plan) override {
        const Open open(*region_);
        inner->run(g, plan);
    }
private:
    std::shared_ptr<Region> region_ = std::make_shared<Region>();
};

}  // namespace guarded
