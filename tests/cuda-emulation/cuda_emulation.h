// cuda_emulation.h - enough of CUDA to run our kernels on a CPU: for tests only, included before any file of src/cuda.
//
// Each CUDA thread is a fiber. The threads of a block run one after the other, each until it waits at __syncthreads()
// or at a warp operation; when none can run, whatever is complete is released. The order is forward, reverse or random:
// a kernel that forgets a barrier gives different results in different orders. Shared memory and cudaMalloc start as
// NaN (0xFF) and end where they end, so that the address sanitizer sees an access beyond them. What CUDA leaves
// undefined - threads of a block at different barriers, a shuffle that reads a lane outside its mask, a wait that never
// ends - is an exception here.
//
// What it cannot show: speed, real memory ordering between blocks, and the rounding of approximate instructions.
#pragma once
#define QLORA_CUDA_EMULATION

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ucontext.h>

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
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline uint32_t __float_as_uint(float f) { uint32_t u; std::memcpy(&u, &f, 4); return u; }
inline float __uint_as_float(uint32_t u) { float f; std::memcpy(&f, &u, 4); return f; }
// volatile: never fused into an addition
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
inline float __fadd_rn(float a, float b) { return a + b; }

namespace cuda_emulation {

enum class Order { forward, reverse, random };
struct Options {
    Order order = Order::forward;
    uint64_t seed = 1;
};
inline Options options;

struct Failure : std::runtime_error { using std::runtime_error::runtime_error; };

constexpr size_t stack_bytes = 128 * 1024;

// What a lane brings to a warp operation: the value, the lane whose value it wants, and the place in the source, which
// all must share.
struct WarpRequest {
    uint32_t mask = 0;
    int source = 0, line = 0;
    uint64_t value = 0, result = 0;
};

struct Thread {
    enum class State { ready, at_barrier, at_warp, done };
    ucontext_t context{};
    std::vector<char> stack = std::vector<char>(stack_bytes);
    State state = State::ready;
    dim3 index;
    unsigned number = 0;
    int line = 0;                                      // of the barrier where it waits
    unsigned barriers = 0, warp_operations = 0;        // passed so far
    WarpRequest request;
    void* sanitizer = nullptr;                         // the fake stack (address) or the fiber (thread) of a sanitizer
};

struct Block {
    dim3 index, size, grid;
    std::vector<Thread*> threads;
    std::map<const void*, std::unique_ptr<std::vector<unsigned char>>> shared;
    const std::function<void()>* body = nullptr;
    char meetings[2] = {}, warp_meetings[32 * 3] = {}; // where threads meet, as the thread sanitizer sees it
    std::string error;                                 // of an exception inside the kernel
    ucontext_t scheduler{};
    Thread* running = nullptr;
    void* sanitizer = nullptr;
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
};
inline thread_local Block* block = nullptr;

// The emulator's own bookkeeping passes between fibers without locks: the thread sanitizer looks at the kernels only.
struct Quiet {
#if defined(__SANITIZE_THREAD__)
    Quiet() { AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0); }
    ~Quiet() { AnnotateIgnoreReadsEnd("", 0); AnnotateIgnoreWritesEnd("", 0); }
#else
    Quiet() {}
#endif
};
#if defined(__SANITIZE_THREAD__)
#define QLORA_UNSEEN __attribute__((no_sanitize("thread")))
#else
#define QLORA_UNSEEN
#endif

// ---- Switching between the scheduler and a thread, told to the sanitizers.
QLORA_UNSEEN inline void switch_to(Thread& t) {
    block->running = &t;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&block->sanitizer, t.stack.data(), t.stack.size());
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(t.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&block->scheduler, &t.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(block->sanitizer, nullptr, nullptr);
#endif
}

QLORA_UNSEEN inline void yield_to_scheduler() {
    Thread& me = *block->running;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(me.state == Thread::State::done ? nullptr : &me.sanitizer, block->scheduler_stack,
                                   block->scheduler_stack_bytes);
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(block->sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&me.context, &block->scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(me.sanitizer, nullptr, nullptr);
#endif
}

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

inline void thread_entry() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack, &block->scheduler_stack_bytes);
#endif
    acquire_memory(&block->body);
    try {
        (*block->body)();
    } catch (const std::exception& e) {
        block->error = e.what();
    }
    release_memory(&block->scheduler);
    {
        const Quiet quiet;
        block->running->state = Thread::State::done;
    }
    yield_to_scheduler();
    std::abort();                                      // a finished thread is never resumed
}

// ---- Waiting.
inline void barrier(int line) {
    const Quiet quiet;
    Thread& me = *block->running;
    me.state = Thread::State::at_barrier;
    me.line = line;
    // Two places in turn: a thread that resumes late must not see what others released at the next barrier already.
    void* const meeting = &block->meetings[me.barriers++ % 2];
    release_memory(meeting);
    yield_to_scheduler();
    acquire_memory(meeting);
}

inline uint64_t warp_operation(uint32_t mask, uint64_t value, int source, int line) {
    const Quiet quiet;
    Thread& me = *block->running;
    me.request = {mask, source, line, value, 0};
    me.state = Thread::State::at_warp;
    // Lanes of a full mask count alike; where masks differ, one place for all may hide a race but never invents one.
    const unsigned turn = mask == ~0u ? me.warp_operations++ % 2 : 2;
    void* const meeting = &block->warp_meetings[me.number / 32 * 3 + turn];
    release_memory(meeting);
    yield_to_scheduler();
    acquire_memory(meeting);
    return me.request.result;
}

// ---- The scheduler.
inline std::string place() { return "block " + std::to_string(block->index.x) + "," + std::to_string(block->index.y); }

// Completes every warp operation whose lanes have all arrived; returns whether there was one.
inline bool release_warps() {
    bool any = false;
    for (size_t first = 0; first < block->threads.size(); first += 32) {
        const size_t lanes = std::min<size_t>(32, block->threads.size() - first);
        for (size_t lane = 0; lane < lanes; ++lane) {
            const Thread& t = *block->threads[first + lane];
            if (t.state != Thread::State::at_warp) continue;
            const WarpRequest& r = t.request;
            if (!(r.mask >> lane & 1))
                throw Failure("line " + std::to_string(r.line) + ": a lane outside its own mask, " + place());
            bool complete = true;
            for (size_t l = 0; l < 32 && complete; ++l) {
                if (!(r.mask >> l & 1)) continue;
                if (l >= lanes || block->threads[first + l]->state == Thread::State::done)
                    throw Failure("line " + std::to_string(r.line) +
                                  ": the mask names a lane that does not exist or has ended, " + place());
                const Thread& other = *block->threads[first + l];
                complete = other.state == Thread::State::at_warp && other.request.mask == r.mask &&
                           other.request.line == r.line;
            }
            if (!complete) continue;
            const uint32_t mask = r.mask;
            for (size_t l = 0; l < lanes; ++l) {
                if (!(mask >> l & 1)) continue;
                WarpRequest& mine = block->threads[first + l]->request;
                if (!(mask >> mine.source & 1))
                    throw Failure("line " + std::to_string(mine.line) + ": a shuffle reads a lane outside the mask, " +
                                  place());
                mine.result = block->threads[first + size_t(mine.source)]->request.value;
                block->threads[first + l]->state = Thread::State::ready;
            }
            any = true;
        }
    }
    return any;
}

inline bool release_barrier() {
    int line = 0;
    for (const Thread* t : block->threads) {
        if (t->state == Thread::State::at_warp) return false;
        if (t->state != Thread::State::at_barrier) continue;
        if (line && t->line != line)
            throw Failure("threads wait at two barriers, lines " + std::to_string(line) + " and " +
                          std::to_string(t->line) + ", " + place());
        line = t->line;
    }
    if (!line) return false;
    for (Thread* t : block->threads)
        if (t->state == Thread::State::at_barrier) t->state = Thread::State::ready;
    return true;
}

inline void run_block(Block& b, std::mt19937_64& random) {
    const Quiet quiet;
    block = &b;
    std::vector<Thread*> order = b.threads;
    if (options.order == Order::reverse) order.assign(b.threads.rbegin(), b.threads.rend());
    release_memory(&b.body);
    for (;;) {
        if (options.order == Order::random) std::shuffle(order.begin(), order.end(), random);
        bool ran = false;
        for (Thread* t : order) {
            if (t->state != Thread::State::ready) continue;
            switch_to(*t);
            ran = true;
            if (!b.error.empty()) throw Failure("exception in a kernel: " + b.error);
        }
        if (ran) continue;
        const bool all_done = std::all_of(order.begin(), order.end(),
                                          [](const Thread* t) { return t->state == Thread::State::done; });
        if (all_done) break;
        if (!release_warps() && !release_barrier())
            throw Failure("deadlock: threads wait for others that never come, " + place());
    }
    acquire_memory(&b.scheduler);
    block = nullptr;
}

// The fibers of one launch, reused by its blocks.
struct Fibers {
    std::vector<std::unique_ptr<Thread>> threads;
    explicit Fibers(unsigned count) {
        for (unsigned i = 0; i < count; ++i) {
            threads.push_back(std::make_unique<Thread>());
            threads[i]->number = i;
            threads[i]->index = dim3(i, 0, 0);
        }
    }
    ~Fibers() { drop(); }
    void rearm() {
        drop();
        for (auto& t : threads) arm(*t);
    }
    static void arm(Thread& t) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(t.stack.data(), t.stack.size());    // frames of the thread that ended here last
#endif
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack.data();
        t.context.uc_stack.ss_size = t.stack.size();
        t.context.uc_link = nullptr;
        makecontext(&t.context, thread_entry, 0);
        t.state = Thread::State::ready;
        t.barriers = t.warp_operations = 0;
#if defined(__SANITIZE_THREAD__)
        t.sanitizer = __tsan_create_fiber(0);
#else
        t.sanitizer = nullptr;
#endif
    }
    void drop() {
#if defined(__SANITIZE_THREAD__)
        for (auto& t : threads)
            if (t->sanitizer) __tsan_destroy_fiber(std::exchange(t->sanitizer, nullptr));
#endif
    }
};

// Runs `body` once for every thread of the grid, as a launch does. Blocks follow the same order as threads.
inline void run(dim3 grid, unsigned threads, const std::function<void()>& body) {
    const Quiet quiet;
    if (threads < 1 || threads > 1024 || grid.x < 1 || grid.x > 0x7fffffffu || grid.y < 1 || grid.y > 65535)
        throw Failure("a launch beyond the limits of a device");
    std::mt19937_64 random(options.seed);
    std::vector<uint64_t> blocks(uint64_t(grid.x) * grid.y);
    std::iota(blocks.begin(), blocks.end(), 0);
    if (options.order == Order::reverse) std::reverse(blocks.begin(), blocks.end());
    if (options.order == Order::random) std::shuffle(blocks.begin(), blocks.end(), random);
    Fibers fibers(threads);
    for (const uint64_t number : blocks) {
        fibers.rearm();
        Block b;
        b.index = dim3(unsigned(number % grid.x), unsigned(number / grid.x), 0);
        b.size = dim3(threads);
        b.grid = grid;
        b.body = &body;
        for (auto& t : fibers.threads) b.threads.push_back(t.get());
#if defined(__SANITIZE_THREAD__)
        b.sanitizer = __tsan_get_current_fiber();
#endif
        run_block(b, random);
    }
}

// One array a block and place in the source.
template <class T>
T* shared(const void* place, size_t count) {
    const Quiet quiet;
    auto& bytes = block->shared[place];
    if (!bytes)
        bytes = std::make_unique<std::vector<unsigned char>>(count * sizeof(T), static_cast<unsigned char>(0xFF));
    return reinterpret_cast<T*>(bytes->data());
}

template <class T>
T exchange(uint32_t mask, T value, int source, int line) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = warp_operation(mask, bits, source, line);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int lane() { return int(block->running->number % 32); }

}  // namespace cuda_emulation

#define threadIdx (cuda_emulation::block->running->index)
#define blockIdx (cuda_emulation::block->index)
#define blockDim (cuda_emulation::block->size)
#define gridDim (cuda_emulation::block->grid)
#define QLORA_SHARED(type, name, count)              \
    type* const name = cuda_emulation::shared<type>( \
        []() -> const void* {                        \
            static const char here = 0;              \
            return &here;                            \
        }(),                                         \
        count)

inline void __syncthreads(int line = __builtin_LINE()) { cuda_emulation::barrier(line); }
inline void __syncwarp(uint32_t mask = ~0u, int line = __builtin_LINE()) {
    cuda_emulation::warp_operation(mask, 0, cuda_emulation::lane(), line);
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int line = __builtin_LINE()) {
    return cuda_emulation::exchange(mask, value, source & 31, line);
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int bits, int line = __builtin_LINE()) {
    return cuda_emulation::exchange(mask, value, cuda_emulation::lane() ^ bits, line);
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, unsigned by, int line = __builtin_LINE()) {
    const int from = cuda_emulation::lane() + int(by);
    return cuda_emulation::exchange(mask, value, from < 32 ? from : cuda_emulation::lane(), line);
}

#include "tests/cuda-emulation/cuda_runtime_emulation.h"
