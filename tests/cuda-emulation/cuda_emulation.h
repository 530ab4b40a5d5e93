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

#include "tests/cuda-emulation/cuda_language.h"

namespace cuda_emulation {

enum class Order { forward, reverse, random };
struct Options {
    Order order = Order::forward;
    uint64_t seed = 1;
};
inline Options options;

struct Failure : std::runtime_error { using std::runtime_error::runtime_error; };

constexpr size_t stack_bytes = 128 * 1024;

// What the lanes of a warp operation brought, and where each finds what it gets.
template <class In, class Out>
struct WarpView {
    uint32_t mask;
    int line;
    const void* const* ins;
    void* const* outs;
    bool has(int lane) const { return mask >> lane & 1; }
    const In& in(int lane) const { return *static_cast<const In*>(ins[lane]); }
    Out& out(int lane) const { return *static_cast<Out*>(outs[lane]); }
};

// A lane at a warp operation: all lanes of the mask must be at the same one, then `complete` is called once for all.
struct WarpRequest {
    uint32_t mask = 0;
    int line = 0;
    const void* operation = nullptr;
    const void* in = nullptr;
    void* out = nullptr;
    void (*complete)(const WarpRequest&, const void* const* ins, void* const* outs) = nullptr;
    const void* function = nullptr;
};

struct CopyUnderWay {                                  // cp.async of 16 bytes; from nowhere: zeros
    void* to;
    const void* from;
    int group, line;
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
    std::vector<CopyUnderWay> copies;
    int copy_groups = 0;                               // committed so far
    void* sanitizer = nullptr;                         // the fake stack (address) or the fiber (thread) of a sanitizer
};

struct Block {
    dim3 index, size, grid;
    std::vector<Thread*> threads;
    std::map<const void*, std::unique_ptr<std::vector<unsigned char>>> shared;
    char* dynamic = nullptr;
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

inline std::string place() { return "block " + std::to_string(block->index.x) + "," + std::to_string(block->index.y); }

// Waits until all lanes of the mask are here; the last calls f(warp) for all.
template <class Out, class In, class F>
Out collective(uint32_t mask, const In& in, const void* operation, int line, const F& f) {
    const Quiet quiet;
    Thread& me = *block->running;
    Out out{};
    me.request = {mask, line, operation, &in, &out,
                  [](const WarpRequest& r, const void* const* ins, void* const* outs) {
                      (*static_cast<const F*>(r.function))(WarpView<In, Out>{r.mask, r.line, ins, outs});
                  },
                  &f};
    me.state = Thread::State::at_warp;
    // Lanes of a full mask count alike; where masks differ, one place for all may hide a race but never invents one.
    const unsigned turn = mask == ~0u ? me.warp_operations++ % 2 : 2;
    void* const meeting = &block->warp_meetings[me.number / 32 * 3 + turn];
    release_memory(meeting);
    yield_to_scheduler();
    acquire_memory(meeting);
    return out;
}

// ---- The scheduler.
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
                           other.request.line == r.line && other.request.operation == r.operation;
            }
            if (!complete) continue;
            const void* ins[32] = {};
            void* outs[32] = {};
            for (size_t l = 0; l < lanes; ++l) {
                if (!(r.mask >> l & 1)) continue;
                ins[l] = block->threads[first + l]->request.in;
                outs[l] = block->threads[first + l]->request.out;
                block->threads[first + l]->state = Thread::State::ready;
            }
            r.complete(r, ins, outs);
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
    for (const Thread* t : b.threads)
        if (!t->copies.empty())
            throw Failure("line " + std::to_string(t->copies.front().line) +
                          ": cp.async that its thread never waited for, " + place());
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
        t.copies.clear();
        t.copy_groups = 0;
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

constexpr size_t most_shared = 227 * 1024;             // of one block

// Shared memory of exactly that many bytes, all 0xFF.
struct DynamicShared {
    char* data = nullptr;
    explicit DynamicShared(size_t bytes) {
        void* p = nullptr;
        if (bytes && posix_memalign(&p, 1024, bytes) != 0) throw std::bad_alloc();
        if (bytes) std::memset(p, 0xFF, bytes);
        data = static_cast<char*>(p);
    }
    ~DynamicShared() { std::free(data); }
    DynamicShared(const DynamicShared&) = delete;
};

// Runs `body` once for every thread of the grid, as a launch does. Blocks follow the same order as threads.
inline void run(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& body) {
    const Quiet quiet;
    if (threads < 1 || threads > 1024 || grid.x < 1 || grid.x > 0x7fffffffu || grid.y < 1 || grid.y > 65535 ||
        grid.z < 1 || grid.z > 65535 || shared_bytes > most_shared)
        throw Failure("a launch beyond the limits of a device");
    std::mt19937_64 random(options.seed);
    std::vector<uint64_t> blocks(uint64_t(grid.x) * grid.y * grid.z);
    std::iota(blocks.begin(), blocks.end(), 0);
    if (options.order == Order::reverse) std::reverse(blocks.begin(), blocks.end());
    if (options.order == Order::random) std::shuffle(blocks.begin(), blocks.end(), random);
    Fibers fibers(threads);
    for (const uint64_t number : blocks) {
        fibers.rearm();
        const DynamicShared dynamic(shared_bytes);
        Block b;
        b.index = dim3(unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
                       unsigned(number / grid.x / grid.y));
        b.size = dim3(threads);
        b.grid = grid;
        b.dynamic = dynamic.data;
        b.body = &body;
        for (auto& t : fibers.threads) b.threads.push_back(t.get());
#if defined(__SANITIZE_THREAD__)
        b.sanitizer = __tsan_get_current_fiber();
#endif
        run_block(b, random);
    }
}
inline void run(dim3 grid, unsigned threads, const std::function<void()>& body) { run(grid, threads, 0, body); }

// One array a block and place in the source.
template <class T>
T* shared(const void* place, size_t count) {
    const Quiet quiet;
    auto& bytes = block->shared[place];
    if (!bytes)
        bytes = std::make_unique<std::vector<unsigned char>>(count * sizeof(T), static_cast<unsigned char>(0xFF));
    return reinterpret_cast<T*>(bytes->data());
}

inline int lane() { return int(block->running->number % 32); }

template <class T>
T exchange(uint32_t mask, T value, int source, int line) {
    struct Wish { T value; int source; };
    static const char operation = 0;
    return collective<T>(mask, Wish{value, source}, &operation, line, [](const WarpView<Wish, T>& warp) {
        for (int lane = 0; lane < 32; ++lane) {
            if (!warp.has(lane)) continue;
            const int from = warp.in(lane).source;
            if (!warp.has(from))
                throw Failure("line " + std::to_string(warp.line) + ": a shuffle reads a lane outside the mask, " +
                              place());
            warp.out(lane) = warp.in(from).value;
        }
    });
}

// f(a, b) over the values of all lanes, in order, for each of them.
template <class T, class F>
T reduce(uint32_t mask, T value, int line, const F& f) {
    static const char operation = 0;
    return collective<T>(mask, value, &operation, line, [&](const WarpView<T, T>& warp) {
        T all{};
        bool first = true;
        for (int lane = 0; lane < 32; ++lane)
            if (warp.has(lane)) all = std::exchange(first, false) ? warp.in(lane) : f(all, warp.in(lane));
        for (int lane = 0; lane < 32; ++lane)
            if (warp.has(lane)) warp.out(lane) = all;
    });
}
inline uint32_t ballot(uint32_t mask, bool value, int line) {
    return reduce(mask, value ? 1u << lane() : 0u, line, [](uint32_t a, uint32_t b) { return a | b; });
}

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

// as many bytes as the launch asks for
#define QLORA_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(cuda_emulation::block->dynamic)

inline void __syncthreads(int line = __builtin_LINE()) { cuda_emulation::barrier(line); }
inline void __syncwarp(uint32_t mask = ~0u, int line = __builtin_LINE()) {
    static const char operation = 0;
    cuda_emulation::collective<char>(mask, char(0), &operation, line, [](const cuda_emulation::WarpView<char, char>&) {});
}
[[noreturn]] inline void __trap() { throw cuda_emulation::Failure("__trap(), " + cuda_emulation::place()); }
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

template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned by, int line = __builtin_LINE()) {
    const int from = cuda_emulation::lane() - int(by);
    return cuda_emulation::exchange(mask, value, from >= 0 ? from : cuda_emulation::lane(), line);
}
inline uint32_t __ballot_sync(uint32_t mask, int value, int line = __builtin_LINE()) {
    return cuda_emulation::ballot(mask, value != 0, line);
}
inline int __any_sync(uint32_t mask, int value, int line = __builtin_LINE()) {
    return cuda_emulation::ballot(mask, value != 0, line) != 0;
}
inline int __all_sync(uint32_t mask, int value, int line = __builtin_LINE()) {
    return cuda_emulation::ballot(mask, value == 0, line) == 0;
}
#define QLORA_REDUCTION(name, result)                                               \
    template <cuda_emulation::Counts T>                                             \
    T name(uint32_t mask, T value, int line = __builtin_LINE()) {                   \
        return cuda_emulation::reduce(mask, value, line, [](T a, T b) { return T(result); }); \
    }
QLORA_REDUCTION(__reduce_add_sync, a + b)
QLORA_REDUCTION(__reduce_min_sync, b < a ? b : a)
QLORA_REDUCTION(__reduce_max_sync, a < b ? b : a)
#undef QLORA_REDUCTION

#include "tests/cuda-emulation/cuda_mma_emulation.h"
#include "tests/cuda-emulation/cuda_runtime_emulation.h"
