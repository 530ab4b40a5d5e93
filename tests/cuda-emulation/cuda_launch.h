// cuda_launch.h - a grid of blocks, their shared memory, and the options that a test chooses.
#pragma once
#include "tests/cuda-emulation/cuda_blocks.h"

namespace cuda_emulation {

constexpr size_t most_shared = 227 * 1024;             // of one block
constexpr unsigned char poison = 0xFF;                 // a NaN in every type

// Memory of exactly that many bytes, so that the address sanitizer sees the next one. It is aligned as asked for and
// not better: a vector load of what is declared as scalars is an error on a device, too.
class SharedArray {
public:
    SharedArray(size_t bytes, size_t alignment) {
        const size_t shift = alignment < 16 ? alignment : 0;
        if (posix_memalign(&memory_, std::max<size_t>(alignment, 16), shift + bytes) != 0) throw std::bad_alloc();
        data_ = static_cast<char*>(memory_) + shift;
        std::memset(data_, poison, bytes);
    }
    ~SharedArray() { std::free(memory_); }
    SharedArray(const SharedArray&) = delete;
    char* data() const { return data_; }

private:
    void* memory_ = nullptr;
    char* data_ = nullptr;
};

// The threads of a launch, used by its blocks one after the other, and the fibers of a host thread.
struct Threads {
    static FiberPool& fibers() {
        static thread_local FiberPool pool;
        return pool;
    }
    std::vector<Thread> threads;
    explicit Threads(unsigned count) : threads(count) {
        for (unsigned i = 0; i < count; ++i) {
            threads[i].number = i;
            threads[i].index = dim3(i, 0, 0);
        }
    }
    void into(Block& b, Order order) {
        for (Thread& t : threads) {
            t.state = Thread::State::ready;
#if defined(__SANITIZE_THREAD__)    // all by the same parent: a fiber begins after all that its parent did
            t.fiber = &fibers().take(thread_entry);
#else
            t.fiber = nullptr;
#endif
            t.barriers = t.group_operations = 0;
            t.copies.clear();
            t.copy_groups = 0;
            t.extension = nullptr;
            b.threads.push_back(&t);
        }
        b.order = b.threads;
        if (order == Order::reverse) std::reverse(b.order.begin(), b.order.end());
    }
    // Stacks of threads that were abandoned in the middle start anew; so does every one for the thread sanitizer.
    void leave() {
        for (Thread& t : threads) {
#if defined(__SANITIZE_THREAD__)
            if (t.fiber) fibers().give(*t.fiber, false);
#else
            if (t.fiber && t.state != Thread::State::done) fibers().give(*t.fiber, false);
#endif
            t.fiber = nullptr;
        }
    }
};

inline bool is_launchable(dim3 grid, unsigned threads, size_t shared_bytes) {
    return threads >= 1 && threads <= 1024 && grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= 65535 &&
           grid.z >= 1 && grid.z <= 65535 && shared_bytes <= most_shared;
}

// The address of an array of shared memory for the running block: one for each place in the source.
struct SharedArrays {
    std::vector<std::unique_ptr<SharedArray>> arrays;
};
inline thread_local SharedArrays* shared_arrays = nullptr;

inline void run_block(Block& b, Threads& threads, const Options& how, std::mt19937_64& random) {
    struct Current {                                   // also when an exception ends it
        Threads& threads;
        SharedArrays arrays;
        Current(Block& b, Threads& t) : threads(t) {
            block = &b;
            shared_arrays = &arrays;
        }
        ~Current() {
            threads.leave();
            block = nullptr;
            shared_arrays = nullptr;
        }
    };
    threads.into(b, how.order);
    b.fibers = &Threads::fibers();
#if defined(__SANITIZE_THREAD__)
    b.scheduler.sanitizer = __tsan_get_current_fiber();
#endif
    const Current current(b, threads);
    run_threads(b, how, random);
}

// Runs `body` once for every thread of the grid, as a launch does. Blocks follow the same order as threads.
inline void run_grid(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& body,
                     const Options& how) {
    const Quiet quiet;
    if (!is_launchable(grid, threads, shared_bytes)) throw Failure("a launch beyond the limits of a device");
    std::mt19937_64 random(how.seed);
    std::vector<uint64_t> blocks(uint64_t(grid.x) * grid.y * grid.z);
    std::iota(blocks.begin(), blocks.end(), 0);
    if (how.order == Order::reverse) std::reverse(blocks.begin(), blocks.end());
    if (how.order == Order::random) std::shuffle(blocks.begin(), blocks.end(), random);
    Threads all(threads);
    for (const uint64_t number : blocks) {
        const SharedArray dynamic(shared_bytes, 1024);
        Block b;
        b.index = dim3(unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
                       unsigned(number / grid.x / grid.y));
        b.size = dim3(threads);
        b.grid = grid;
        b.dynamic = shared_bytes ? dynamic.data() : nullptr;
        b.dynamic_bytes = shared_bytes;
        b.body = &body;
        run_block(b, all, how, random);
    }
}

// One array a block and place in the source.
template <class T>
T* shared(const void* place, size_t count) {
    const Quiet quiet;
    for (const auto& [where, data] : block->shared)
        if (where == place) return static_cast<T*>(data);
    auto& arrays = shared_arrays->arrays;
    arrays.push_back(std::make_unique<SharedArray>(count * sizeof(T), alignof(T)));
    block->shared.emplace_back(place, arrays.back()->data());
    return reinterpret_cast<T*>(arrays.back()->data());
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
