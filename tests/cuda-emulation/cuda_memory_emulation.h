// cuda_memory_emulation.h - memory of the device: pages that host code cannot touch and device work can, with an
// inaccessible page behind each allocation, within a capacity; managed memory with a map of its pages.
//
// Addresses are never used twice. A kernel that follows a pointer beyond an allocation, or into freed memory, is a
// Failure; host code that does is told so and ends by SIGSEGV. New memory is 0xFF. Pages of managed memory move when
// they are prefetched, or touched on the other side: a fault, which is counted.
#pragma once
#include "tests/cuda-emulation/cuda_launch.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include <csignal>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

namespace cuda_emulation {

enum class Kind : uint8_t { pageable, pinned, device, managed };

struct Allocation {
    char* data = nullptr;
    size_t bytes = 0;
    Kind kind = Kind::device;
    char* first = nullptr;                             // whole pages around it
    size_t mapped = 0;
    std::vector<char> on_device;                       // managed: of each page
    std::vector<int> to_device, to_host;               // managed: how often each page moved
    bool contains(const void* p) const { return p >= data && p < data + bytes; }
};

class Memory {
public:
    static constexpr size_t small_page = 4096, managed_page = size_t(2) << 20, unit = 256;
    size_t capacity = size_t(1) << 30, used = 0, most_used = 0;    // bytes on the device; capacity is the tests' to set
    size_t others = 0;                                 // bytes of it that other processes have
    int64_t others_after = -1;                         // so many allocations later `others_take` more are theirs
    size_t others_take = 0;
    size_t pinnable = SIZE_MAX;    // bytes of the host that may be pinned at a time: theirs too
    int64_t device_faults = 0, host_faults = 0, paged_bytes = 0;   // of managed memory
    size_t available() const { return capacity - std::min(capacity, used + others); }
    bool concurrent = true;                            // managed memory: prefetches, and touched while work is queued
    std::string error;                                 // found where nothing can be thrown
    std::map<const char*, Allocation> live, freed;     // by first byte

    // null: not enough
    void* take(size_t bytes, Kind kind) {
        const std::lock_guard lock(mutex_);
        install();
        Allocation a;
        a.kind = kind;
        a.bytes = bytes;
        const size_t page = kind == Kind::managed ? managed_page : small_page;
        const size_t rounded = (bytes + unit - 1) / unit * unit;
        a.mapped = (rounded + page - 1) / page * page;
        if (others_after >= 0 && others_after-- == 0) others += others_take;
        if (kind == Kind::device && rounded > available()) return nullptr;
        next_ = (next_ + page - 1) / page * page;
        if (next_ + a.mapped + page > region_bytes) throw Failure("the emulation has no more addresses");
        a.first = region_ + next_;
        next_ += a.mapped + page;                      // a page stays inaccessible
        a.data = kind == Kind::managed ? a.first : a.first + a.mapped - rounded;    // the end lies at a page's end
        protect(a.first, a.mapped, true);
        std::memset(a.first, poison, a.mapped);
#if defined(__SANITIZE_ADDRESS__)
        __asan_poison_memory_region(a.first, size_t(a.data - a.first));
        __asan_poison_memory_region(a.data + bytes, a.mapped - size_t(a.data - a.first) - bytes);
#endif
        if (kind == Kind::managed) {
            for (auto* v : {&a.to_device, &a.to_host}) v->resize(a.mapped / page);
            a.on_device.resize(a.mapped / page);
        } else {
            grow(rounded);
            if (!opened_) protect(a.first, a.mapped, false);
        }
        return live.emplace(a.data, a).first->second.data;
    }
    bool give(void* p) {
        const std::lock_guard lock(mutex_);
        const auto at = live.find(static_cast<char*>(p));
        if (at == live.end()) return false;
        Allocation a = at->second;
        live.erase(at);
        if (a.kind == Kind::device) used -= (a.bytes + unit - 1) / unit * unit;
        for (const char on : a.on_device) used -= on ? managed_page : 0;
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(a.first, a.mapped);     // a fault says more
#endif
        protect(a.first, a.mapped, false);
        madvise(a.first, a.mapped, MADV_DONTNEED);
        freed.emplace(a.data, std::move(a));
        return true;
    }
    const Allocation* find(const void* p) const {
        const auto after = live.upper_bound(static_cast<const char*>(p));
        if (after == live.begin()) return nullptr;
        const Allocation& a = std::prev(after)->second;
        return a.contains(p) ? &a : nullptr;
    }
    bool in_region(const void* p) const { return region_ && p >= region_ && p < region_ + region_bytes; }

    // While device work runs. What it wrote beside an allocation is reported at the end.
    void open() {
        const std::lock_guard lock(mutex_);
        if (++opened_ == 1) protect_all();
    }
    void close() {
        const std::lock_guard lock(mutex_);
        if (opened_ == 1) check_edges();
        if (--opened_ == 0) protect_all();
    }

    // Brings pages of managed memory to one side; what does not fit is an error of the run.
    void move(const void* p, size_t bytes, bool to_device, bool fault) {
        const Allocation* found = find(p);
        if (!found || found->kind != Kind::managed || !bytes) return;
        Allocation& a = live.at(found->data);
        const size_t start = size_t(static_cast<const char*>(p) - a.data);
        for (size_t i = start / managed_page; i * managed_page < start + bytes; ++i) {
            if (bool(a.on_device[i]) == to_device) continue;
            a.on_device[i] = to_device;
            ++(to_device ? a.to_device : a.to_host)[i];
            paged_bytes += int64_t(managed_page);
            if (fault) ++(to_device ? device_faults : host_faults);
            if (to_device) grow(managed_page);
            else used -= managed_page;
            protect(a.first + i * managed_page, managed_page, to_device == (opened_ > 0));
        }
        if (used > capacity && error.empty())
            error = "device memory is oversubscribed: " + std::to_string(used) + " of " + std::to_string(capacity) +
                    " bytes";
    }

    // SIGSEGV at p: true if whoever was there may go on; otherwise `what` says what is wrong.
    bool forgive(const void* p, std::string& what, bool work_is_queued) {
        const Allocation* a = find(p);
        if (a && a->kind == Kind::managed && (opened_ || concurrent || !work_is_queued)) {
            move(p, 1, opened_ > 0, true);
            return true;
        }
        if (a && a->kind == Kind::managed) {
            what = "host code touches managed memory while device work is queued";
            return false;
        }
        const auto near = [p](const std::map<const char*, Allocation>& in) {
            const auto after = in.upper_bound(static_cast<const char*>(p));
            return after == in.begin() ? nullptr : &std::prev(after)->second;
        };
        const Allocation* here = a ? a : near(live);
        const Allocation* old = near(freed);
        if (!a && old && old->contains(p)) here = old;
        what = opened_ ? "device work touches " : "host code touches ";
        what += a ? "device memory" : here && here == old ? "freed memory" : "what is not allocated";
        if (here)
            what += ": byte " + std::to_string(static_cast<const char*>(p) - here->data) + " of an allocation of " +
                    std::to_string(here->bytes) + " bytes";
        return false;
    }
    // What was found where nothing could be thrown.
    void throw_error() {
        if (!error.empty()) throw Failure(std::exchange(error, {}));
    }

private:
    static constexpr size_t region_bytes = size_t(1) << 38;    // of addresses
    char* region_ = nullptr;
    size_t next_ = 0;
    int opened_ = 0;
    std::recursive_mutex mutex_;

    static void protect(char* p, size_t bytes, bool open) {
        if (mprotect(p, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
            std::perror("cuda emulation: mprotect");
            std::abort();
        }
    }
    void protect_all() {
        const bool open = opened_ > 0;
        for (const auto& [data, a] : live) {
            if (a.kind == Kind::device) protect(a.first, a.mapped, open);
            for (size_t i = 0; i < a.on_device.size(); ++i)
                protect(a.first + i * managed_page, managed_page, bool(a.on_device[i]) == open);
        }
    }
    void grow(size_t bytes) {
        used += bytes;
        most_used = std::max(most_used, used);
    }
    void check_edges() {
#if !defined(__SANITIZE_ADDRESS__)                     // which sees each byte at once
        for (const auto& [data, a] : live) {
            if (a.kind != Kind::device) continue;
            const char* const end = a.first + a.mapped;
            const auto is_written = [](char c) { return static_cast<unsigned char>(c) != poison; };
            if (std::any_of(a.data + a.bytes, a.first + a.mapped, is_written) ||
                std::any_of(std::max(a.first, a.data - 64), a.data, is_written))
                error = "device work wrote beside an allocation of " + std::to_string(a.bytes) + " bytes";
            std::memset(a.data + a.bytes, poison, size_t(end - a.data) - a.bytes);
        }
#endif
    }
    void install();
};

// Alive until the process ends: kernels of static objects may still run.
inline Memory& memory() {
    static Memory* const all = new Memory;
    return *all;
}
inline int64_t queued_work();                          // entries of all streams

// ---- What a fault becomes.
inline std::string& fault_text() {
    static std::string text;
    return text;
}
inline struct sigaction fault_before;

// The thread of a kernel that faulted comes here instead of going on: it is left where it is.
[[noreturn]] inline void end_faulty_thread() {
    block->error = fault_text();
    switch_fibers(*fiber_now, fiber_of(nullptr));
    std::abort();
}

inline void on_fault(int signal, siginfo_t* info, [[maybe_unused]] void* context) {
    const bool here = memory().in_region(info->si_addr);
    if (here && memory().forgive(info->si_addr, fault_text(), queued_work() > 0)) return;
    if (!here && info->si_code == SI_KERNEL && block)
        fault_text() = "a vector load or store at an address that is not a multiple of its size (or no address at all)";
    else if (!here) fault_text().clear();
#if defined(__x86_64__)
    if (block && block->running && !fault_text().empty()) {
        auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
        registers[REG_RSP] = ((registers[REG_RSP] - 128) & ~15LL) - 8;    // as after a call, below the red zone
        registers[REG_RIP] = reinterpret_cast<greg_t>(&end_faulty_thread);
        return;
    }
#endif
    if (!fault_text().empty()) std::fprintf(stderr, "cuda emulation: %s\n", fault_text().c_str());
    sigaction(signal, &fault_before, nullptr);         // and again, to whom it was before
}

inline void Memory::install() {
    if (region_) return;
    void* const p = mmap(nullptr, region_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw Failure("no addresses for the memory of a device");
    const size_t skip = (managed_page - reinterpret_cast<size_t>(p) % managed_page) % managed_page;
    region_ = static_cast<char*>(p);
    next_ = skip;
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &fault_before);
}

// Device memory is accessible as long as this lives.
struct Open {
    Open() { memory().open(); }
    ~Open() { memory().close(); }
    Open(const Open&) = delete;
};

}  // namespace cuda_emulation
