// threads.cpp - the worker pool: a shared counter hands out task numbers; workers spin for a moment between runs, then
// sleep.
//
// One word, the gate, says everything that caller and workers must agree on:
//   bits 0-15 workers inside the run | bit 16 the run is open | bits 17-63 its number.
// A worker enters an open run by adding one, so the caller closes the gate when the tasks are used up and waits only
// for those inside: a worker that is still waking up does not hold up a run that is over.
#include "src/base/threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace threads_room {

constexpr uint64_t inside_mask = 0xffff, open_bit = 0x10000, one_run = 0x20000;
constexpr int spins = 2000;    // 20 to 80 microseconds: longer than the gaps between the operations of a graph

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// the pool whose task this thread is in: catches run() inside a task
thread_local const void* running_pool = nullptr;
thread_local bool alone = false;                       // this thread's runs stay on it

// A fork copies the memory of a pool and not its threads. Counted, so that a pool knows whether it is such a copy.
// Windows has none.
std::atomic<unsigned> forks{0};
unsigned generation() {
#if !defined(_WIN32)
    [[maybe_unused]] static const int registered = ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
#endif
    return forks.load(std::memory_order_relaxed);
}

}  // namespace threads_room

struct ThreadPool::State {
    std::mutex one_caller;                             // held for a whole run()
    std::mutex mutex;                                  // of the two condition variables and of `error`
    std::condition_variable wake, done;
    std::atomic<uint64_t> gate{0};
    std::atomic<int64_t> next{0};
    std::atomic<int> sleepers{0};
    std::atomic<bool> caller_sleeps{false}, stop{false};
    Call call = nullptr;
    const void* context = nullptr;
    int64_t count = 0;
    std::exception_ptr error;
    int64_t error_number = 0;
    std::vector<std::thread> workers;
    const unsigned made_in = threads_room::generation();

    bool forked() const { return made_in != threads_room::forks.load(std::memory_order_relaxed); }

    // Numbers are claimed in order, so every number below a failing one is run: the lowest failing number wins, on any
    // machine.
    void run_tasks(int thread) {
        const void* outer = std::exchange(threads_room::running_pool, this);
        for (int64_t number; (number = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
            try {
                call(context, number, thread);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!error || number < error_number) { error = std::current_exception(); error_number = number; }
                next.store(count, std::memory_order_relaxed);
            }
        }
        threads_room::running_pool = outer;
    }

    bool try_enter(uint64_t& last_run) {
        uint64_t g = gate.load();
        while ((g & threads_room::open_bit) && g / threads_room::one_run != last_run) {
            if (!gate.compare_exchange_weak(g, g + 1)) continue;
            last_run = g / threads_room::one_run;
            return true;
        }
        return false;
    }

    void leave() {
        const uint64_t g = gate.fetch_sub(1) - 1;
        if ((g & (threads_room::open_bit | threads_room::inside_mask)) != 0 || !caller_sleeps.load()) return;
        { const std::lock_guard lock(mutex); }    // the caller is either before its test of the gate or already waiting
        done.notify_one();
    }

    void worker(int thread) {
        uint64_t last_run = 0;
        for (int spin = 0; !stop.load();) {
            if (try_enter(last_run)) {
                run_tasks(thread);
                leave();
                spin = 0;
            } else if (++spin < threads_room::spins) {
                threads_room::relax();
            } else {
                std::unique_lock lock(mutex);
                // before the test below: a caller that opens the gate later sees it and notifies
                sleepers.fetch_add(1);
                wake.wait(lock, [&] {
                    const uint64_t g = gate.load();
                    return stop.load() || ((g & threads_room::open_bit) && g / threads_room::one_run != last_run);
                });
                sleepers.fetch_sub(1);
                spin = 0;
            }
        }
    }

    void wake_sleepers() {
        if (sleepers.load() == 0) return;
        { const std::lock_guard lock(mutex); }         // a worker that counted itself is waiting by now
        wake.notify_all();
    }

    void wait_until_empty() {
        const auto empty = [&] { return (gate.load() & threads_room::inside_mask) == 0; };
        for (int spin = 0; spin < threads_room::spins; ++spin) {
            if (empty()) return;
            threads_room::relax();
        }
        std::unique_lock lock(mutex);
        caller_sleeps.store(true);
        done.wait(lock, empty);
        caller_sleeps.store(false);
    }

    void join() {
        stop.store(true);
        { const std::lock_guard lock(mutex); }
        wake.notify_all();
        for (std::thread& w : workers) w.join();
    }
};

ThreadPool::Alone::Alone(bool alone) : before_(std::exchange(threads_room::alone, alone || threads_room::alone)) {}
ThreadPool::Alone::~Alone() { threads_room::alone = before_; }

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
    if (threads < 0 || threads > most)
        fail(Errc::argument, "threads: ", threads, " is not between 0 (every core) and ", most);
    size_ = threads ? threads : std::min(usable_threads(), most);
    try {
        for (int t = 1; t < size_; ++t) state_->workers.emplace_back([state = state_.get(), t] { state->worker(t); });
    } catch (const std::exception& e) {
        state_->join();
        fail(Errc::memory, "threads: could not start ", size_, " threads (", e.what(), "): ask for fewer");
    }
}

// In a forked child there is nobody to join, and the locks may be held by threads that are not there: the copy is left
// as it is.
ThreadPool::~ThreadPool() {
    if (state_->forked()) state_.release();
    else state_->join();
}

void ThreadPool::run_erased(int64_t count, Call call, const void* context) {
    State& s = *state_;
    if (count <= 0) return;
    if (threads_room::running_pool == &s) fail(Errc::argument, "threads: a task called run() of its own pool");
    if (s.forked()) {
        for (int64_t number = 0; number < count; ++number) call(context, number, 0);
        return;
    }
    const std::lock_guard only(s.one_caller);
    s.call = call;
    s.context = context;
    s.count = count;
    s.error = nullptr;
    s.next.store(0, std::memory_order_relaxed);
    // the gate is closed and empty here: nobody reads what was just written
    if (size_ > 1 && count > 1 && !threads_room::alone) {
        s.gate.store((s.gate.load() / threads_room::one_run + 1) * threads_room::one_run + threads_room::open_bit);
        s.wake_sleepers();
        s.run_tasks(0);
        s.gate.fetch_and(~threads_room::open_bit);
        s.wait_until_empty();
    } else {
        s.run_tasks(0);
    }
    if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
}

}}  // namespace qlora
