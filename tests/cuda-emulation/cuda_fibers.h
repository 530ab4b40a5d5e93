// cuda_fibers.h - stacks that a host thread switches between, told to the sanitizers.
//
// On x86-64 a switch is six registers and the stack pointer; elsewhere, or with QLORA_EMULATION_UCONTEXT, it is
// swapcontext. Stacks are mapped once and reused; the page below each one is inaccessible.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <sys/mman.h>
#if !defined(__x86_64__) && !defined(QLORA_EMULATION_UCONTEXT)
#define QLORA_EMULATION_UCONTEXT
#endif
#ifdef QLORA_EMULATION_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#define QLORA_UNSEEN __attribute__((no_sanitize("thread")))
#else
#define QLORA_UNSEEN
#endif

namespace cuda_emulation {

// The emulator's own bookkeeping passes between fibers without locks: the thread sanitizer looks at the kernels only.
struct Quiet {
#if defined(__SANITIZE_THREAD__)
    Quiet() { AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0); }
    ~Quiet() { AnnotateIgnoreReadsEnd("", 0); AnnotateIgnoreWritesEnd("", 0); }
#else
    Quiet() {}
#endif
};

// Orders memory between threads for the thread sanitizer exactly where CUDA does: at barriers and warp operations.
inline void release_memory([[maybe_unused]] void* at) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(at);
#endif
}
inline void acquire_memory([[maybe_unused]] void* at) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(at);
#endif
}

struct Fiber {
    const void* stack = nullptr;                       // its lowest byte; the host thread's: learnt at the first switch
    size_t stack_bytes = 0;
    void* sanitizer = nullptr;                         // the fake stack (address) or the fiber (thread)
    size_t color = 0;                                  // bytes of the stack that are left free at its top
    bool armed = false;                                // it can be switched to: at its start, or where it was left
#ifdef QLORA_EMULATION_UCONTEXT
    ucontext_t context{};
#else
    void* stack_pointer = nullptr;
#endif
};
inline thread_local Fiber *fiber_now = nullptr, *fiber_before = nullptr;

#ifndef QLORA_EMULATION_UCONTEXT
__attribute__((naked, noinline)) QLORA_UNSEEN inline void switch_stacks([[maybe_unused]] void** save,
                                                                        [[maybe_unused]] void* load) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
#endif

QLORA_UNSEEN inline void switch_fibers(Fiber& from, Fiber& to) {
    fiber_before = &from;
    fiber_now = &to;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.stack_bytes);
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef QLORA_EMULATION_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    switch_stacks(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.sanitizer, &fiber_before->stack, &fiber_before->stack_bytes);
#endif
}
// What the function of a fiber calls first.
inline void enter_fiber() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &fiber_before->stack, &fiber_before->stack_bytes);
#endif
}

// The fibers of a host thread: as many as were ever needed at once.
class FiberPool {
public:
    static constexpr size_t stack_bytes = 256 * 1024, guard_bytes = 4096;
    ~FiberPool() {
        for (auto& f : all_) {
            drop(*f);
            munmap(static_cast<char*>(const_cast<void*>(f->stack)) - guard_bytes, stack_bytes + guard_bytes);
        }
    }
    Fiber& take(void (*entry)()) {
        if (free_.empty()) {
            all_.push_back(made());
            all_.back()->color = all_.size() % 64 * 64;    // or the frames of all threads share a few cache lines
            free_.push_back(all_.back().get());
        }
        Fiber& f = *free_.back();
        free_.pop_back();
        if (!f.armed) arm(f, entry);
        return f;
    }
    // armed: it goes on where it is when it is taken again; otherwise it starts anew
    void give(Fiber& f, bool armed) {
        f.armed = armed;
        free_.push_back(&f);
    }

private:
    std::vector<std::unique_ptr<Fiber>> all_;
    std::vector<Fiber*> free_;

    static std::unique_ptr<Fiber> made() {
        void* const p = mmap(nullptr, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED || mprotect(p, guard_bytes, PROT_NONE) != 0) throw std::bad_alloc();
        auto f = std::make_unique<Fiber>();
        f->stack = static_cast<char*>(p) + guard_bytes;
        f->stack_bytes = stack_bytes;
        return f;
    }
    static void drop([[maybe_unused]] Fiber& f) {
#if defined(__SANITIZE_THREAD__)
        if (f.sanitizer) __tsan_destroy_fiber(std::exchange(f.sanitizer, nullptr));
#else
        f.sanitizer = nullptr;
#endif
    }
    static void arm(Fiber& f, void (*entry)()) {
        drop(f);
        f.armed = true;
        char* const stack = static_cast<char*>(const_cast<void*>(f.stack));
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(stack, stack_bytes);    // frames that were abandoned here
#elif defined(__SANITIZE_THREAD__)
        f.sanitizer = __tsan_create_fiber(0);
#endif
#ifdef QLORA_EMULATION_UCONTEXT
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stack;
        f.context.uc_stack.ss_size = stack_bytes - f.color;
        f.context.uc_link = nullptr;
        makecontext(&f.context, entry, 0);
#else
        void** top = reinterpret_cast<void**>(stack + stack_bytes - f.color) - 8;
        *--top = nullptr;                              // where the entry would return to; also aligns its frame
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; ++i) *--top = nullptr;
        f.stack_pointer = top;
#endif
    }
};

}  // namespace cuda_emulation
