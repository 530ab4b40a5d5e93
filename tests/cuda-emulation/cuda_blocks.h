// cuda_blocks.h - the threads of a block as fibers, their scheduler, and what they wait for: barriers and groups.
//
// A thread runs until it waits; then the next one that can goes on, in the order that the options say. A thread that
// never waits needs no stack of its own: the next one starts where it ended.
#pragma once
#include "tests/cuda-emulation/cuda_fibers.h"
#include "tests/cuda-emulation/cuda_language.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace cuda_emulation {

enum class Order { forward, reverse, random };
struct Options {
    Order order = Order::forward;
    uint64_t seed = 1;
};
inline Options options;

struct Failure : std::runtime_error { using std::runtime_error::runtime_error; };

// A thread at an operation of a group of threads, a warp as a rule: all that the mask names must be at the same one;
// then `complete` is called once for all.
struct GroupRequest {
    size_t first, count;                               // the threads of the group: 32, or whole warps
    uint32_t mask;                                     // of each of its warps
    int line;
    const void* operation;                             // which one: the address of something static
    const void* in;
    void* out;
};

struct CopyUnderWay {                                  // cp.async of 16 bytes; from nowhere: zeros
    void* to;
    const void* from;
    int group, line;
};

struct Extension {                                     // what instructions keep beyond that
    virtual ~Extension() = default;
    virtual void check_end() const = 0;                // its thread has ended
};

struct Thread {
    enum class State : uint8_t { ready, at_barrier, at_group, polling, done };
    State state = State::done;
    dim3 index;
    unsigned number = 0;
    int line = 0;                                      // where it waits
    unsigned barriers = 0, group_operations = 0;       // passed so far
    Fiber* fiber = nullptr;                            // null: not started
    const GroupRequest* request = nullptr;
    std::function<bool()> may_go_on;                   // of a polling thread
    std::vector<CopyUnderWay> copies;
    int copy_groups = 0;                               // committed so far
    std::shared_ptr<Extension> extension;
};

struct Block {
    dim3 index, size, grid;
    std::vector<Thread*> threads, order;
    size_t next = 0;                                   // the place in `order` where the round stands
    std::vector<std::pair<const void*, void*>> shared; // by place in the source
    char* dynamic = nullptr;
    size_t dynamic_bytes = 0;
    const std::function<void()>* body = nullptr;
    unsigned waiting[32] = {};                         // threads of each warp at an operation of a group
    char meetings[2] = {}, group_meetings[32 * 3] = {};    // where threads meet, as the thread sanitizer sees it
    char begin = 0, end = 0;
    std::vector<std::function<void()>> late;           // what the device does on its own: when nothing else can go on
    std::string error;                                 // of an exception inside the kernel
    Thread* running = nullptr;
    Fiber scheduler;
    FiberPool* fibers = nullptr;
};
inline thread_local Block* block = nullptr;
inline int64_t switches = 0;                           // between threads so far

inline std::string place() {
    const dim3& b = block->index;
    return "block " + std::to_string(b.x) + "," + std::to_string(b.y) + (b.z ? "," + std::to_string(b.z) : "");
}
[[noreturn]] inline void refuse(int line, const std::string& what) {
    throw Failure("line " + std::to_string(line) + ": " + what + ", " + place());
}

// ---- Who runs.
inline Thread* next_ready() {
    Block& b = *block;
    while (b.next < b.order.size())
        if (Thread* t = b.order[b.next++]; t->state == Thread::State::ready) return t;
    return nullptr;
}

inline void thread_entry();
// Where `t` goes on, or the scheduler where t is null.
inline Fiber& fiber_of(Thread* t) {
    Block& b = *block;
    b.running = t;
    ++switches;
    if (!t) return b.scheduler;
    return t->fiber ? *t->fiber : b.fibers->take(thread_entry);
}

// The running thread waits: its state says for what.
QLORA_UNSEEN inline void suspend() {
    Thread& me = *block->running;
    switch_fibers(*me.fiber, fiber_of(next_ready()));
}

inline void run_thread() {
    acquire_memory(&block->begin);
    try {
        (*block->body)();
    } catch (const Failure& e) {
        block->error = e.what();
    } catch (const std::exception& e) {
        block->error = std::string("exception in a kernel: ") + e.what();
    }
    release_memory(&block->end);
}

// Where to go on when the running thread has ended; null: here, with the thread that runs now.
inline Fiber* end_thread([[maybe_unused]] Fiber& mine) {
    const Quiet quiet;
    block->running->state = Thread::State::done;
    Thread* const next = block->error.empty() ? next_ready() : nullptr;
#if !defined(__SANITIZE_THREAD__)    // which knows a thread by its fiber
    if (next && !next->fiber) {
        block->running = next;
        return nullptr;
    }
    block->fibers->give(mine, true);
#endif
    return &fiber_of(next);
}

// The life of a fiber: a thread, and the next one, until one is to go on that waits on a stack of its own.
inline void thread_entry() {
    enter_fiber();
    for (;;) {
        Fiber& mine = *fiber_now;
        block->running->fiber = &mine;
        run_thread();
        if (Fiber* const to = end_thread(mine)) switch_fibers(mine, *to);
    }
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
    suspend();
    acquire_memory(meeting);
}

// What the threads of a group brought, and where each finds what it gets, by its number in the group.
template <class In, class Out>
struct GroupView {
    const GroupRequest& request;
    Thread* const* threads;
    bool has(int i) const { return request.mask >> (i % 32) & 1; }
    const In& in(int i) const { return *static_cast<const In*>(threads[i]->request->in); }
    Out& out(int i) const { return *static_cast<Out*>(threads[i]->request->out); }
};

inline bool is_complete(const GroupRequest& r) {
    const unsigned lanes = r.mask == ~0u ? 32 : unsigned(__popc(r.mask));
    for (size_t warp = r.first / 32; warp < (r.first + r.count) / 32; ++warp)
        if (block->waiting[warp] < lanes) return false;
    for (size_t i = 0; i < r.count; ++i) {
        if (!(r.mask >> (i % 32) & 1)) continue;
        if (r.first + i >= block->threads.size()) return false;
        const Thread& t = *block->threads[r.first + i];
        if (t.state != Thread::State::at_group || t.request->mask != r.mask || t.request->line != r.line ||
            t.request->operation != r.operation)
            return false;
    }
    return true;
}

// Waits until all threads of the mask are here; the last one calls f(view) for all. A group of 32 is the running
// thread's warp; of 128: its warps in fours.
template <class Out, class In, class F>
Out collective(uint32_t mask, const In& in, const void* operation, int line, const F& f, size_t count = 32) {
    const Quiet quiet;
    Thread& me = *block->running;
    const size_t first = me.number / count * count;
    Out out{};
    const GroupRequest request{first, count, mask, line, operation, &in, &out};
    if (!(mask >> (me.number % 32) & 1)) refuse(line, "a lane outside its own mask");
    me.request = &request;
    me.line = line;
    me.state = Thread::State::at_group;
    ++block->waiting[me.number / 32];
    // Lanes of a full mask count alike; where masks differ, one place for all may hide a race but never invents one.
    const unsigned turn = mask == ~0u ? me.group_operations++ % 2 : 2;
    void* const meeting = &block->group_meetings[first / 32 * 3 + turn];
    release_memory(meeting);
    if (is_complete(request)) {
        acquire_memory(meeting);
        f(GroupView<In, Out>{request, &block->threads[first]});
        for (size_t i = 0; i < count; ++i) {
            if (!(mask >> (i % 32) & 1)) continue;
            block->threads[first + i]->state = Thread::State::ready;
            --block->waiting[(first + i) / 32];
        }
        release_memory(meeting);
    } else {
        suspend();
    }
    acquire_memory(meeting);
    return out;
}

// Waits until `may_go_on` says so, which is asked when nothing else can run.
inline void poll(int line, std::function<bool()> may_go_on) {
    const Quiet quiet;
    if (may_go_on()) return;
    Thread& me = *block->running;
    me.may_go_on = std::move(may_go_on);
    me.line = line;
    me.state = Thread::State::polling;
    suspend();
}

// ---- The scheduler, when no thread can run.
inline bool release_polling() {
    bool any = false;
    for (Thread* t : block->threads)
        if (t->state == Thread::State::polling && t->may_go_on()) {
            t->state = Thread::State::ready;
            any = true;
        }
    return any;
}

inline bool run_late(std::mt19937_64& random, Order order) {
    auto& late = block->late;
    if (late.empty()) return false;
    const auto has_ended = [](const Thread* t) { return t->state == Thread::State::done; };
    if (std::all_of(block->threads.begin(), block->threads.end(), has_ended))
        throw Failure("asynchronous copies that nobody waited for, " + place());
    const size_t i = order == Order::forward ? 0 : order == Order::reverse ? late.size() - 1 : random() % late.size();
    const std::function<void()> work = std::move(late[i]);
    late.erase(late.begin() + ptrdiff_t(i));
    work();
    return true;
}

// Why a group can never become complete.
[[noreturn]] inline void refuse_group(const GroupRequest& r) {
    for (size_t i = 0; i < r.count; ++i) {
        if (!(r.mask >> (i % 32) & 1)) continue;
        const Thread* t = r.first + i < block->threads.size() ? block->threads[r.first + i] : nullptr;
        if (!t || t->state == Thread::State::done)
            refuse(r.line, "the mask names a lane that does not exist or has ended");
        if (t->line != r.line)
            refuse(r.line, "deadlock: lanes of one group are in different operations, another in line " +
                               std::to_string(t->line));
    }
    refuse(r.line, "deadlock: an operation that others never reach");
}

// Lets those at the barrier go on; false when every thread has ended.
inline bool release_barrier() {
    const Thread* at = nullptr;
    for (const Thread* t : block->threads) {
        if (t->state == Thread::State::done) continue;
        if (t->state == Thread::State::at_group) refuse_group(*t->request);
        if (t->state == Thread::State::polling) refuse(t->line, "deadlock: a wait that never ends");
        if (at && at->line != t->line)
            throw Failure("threads wait at two barriers, lines " + std::to_string(at->line) + " and " +
                          std::to_string(t->line) + ", " + place());
        at = t;
    }
    for (Thread* t : block->threads)
        if (t->state == Thread::State::at_barrier) t->state = Thread::State::ready;
    return at != nullptr;
}

inline void run_threads(Block& b, const Options& how, std::mt19937_64& random) {
    release_memory(&b.begin);
    for (;;) {
        if (how.order == Order::random) std::shuffle(b.order.begin(), b.order.end(), random);
        b.next = 0;
        if (Thread* t = next_ready()) {
            switch_fibers(b.scheduler, fiber_of(t));
            if (!b.error.empty()) throw Failure(b.error);
        } else if (!release_polling() && !run_late(random, how.order) && !release_barrier()) {
            break;
        }
    }
    acquire_memory(&b.end);
    for (const Thread* t : b.threads)
        if (t->extension) t->extension->check_end();
    for (const Thread* t : b.threads)
        if (!t->copies.empty()) refuse(t->copies.front().line, "cp.async that its thread never waited for");
}

}  // namespace cuda_emulation
