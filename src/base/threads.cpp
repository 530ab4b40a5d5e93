// threads.cpp - the worker pool. Tasks are dealt to the threads before a run, each a range of neighbours, and who has
// done his takes the last one of another's. Workers spin for a moment between runs, then sleep.
//
// All that a run tells a worker, and the worker the caller, is in one line of memory, its seat: between cores a line
// travels for about 100 ns, and the products of a small model last a few microseconds. A seat's gate says
//   shut: nothing to do | open: a run has begun | taken: its worker is inside | awaited: and the caller sleeps until it
//   is not | torn down: the pool ends.
// The caller opens it, a worker takes it when it comes and shuts it when no task is left, and the caller shuts those
// that nobody took, so a worker that is still waking up does not hold up a run that is over.
#include "src/base/threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
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

enum Gate : int { shut, open, taken, awaited, torn_down };
// longer than the gaps between the operations of a graph, and between the tokens of a small model
constexpr std::chrono::microseconds patience{200};

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// For a wait: false when it has lasted too long. A pause takes 10 to 60 ns, a look at the clock about as much. Every
// few microseconds the core is offered to others: where threads outnumber cores, to the one that is waited for.
class Patience {
public:
    bool left() {
        if (++turns_ % 64 == 0) {
            const auto now = std::chrono::steady_clock::now();
            if (turns_ == 64) end_ = now + patience;
            else if (now > end_) return false;
            std::this_thread::yield();
        }
        relax();
        return true;
    }
private:
    int64_t turns_ = 0;
    std::chrono::steady_clock::time_point end_;
};

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
    // Of one thread; 128, since processors fetch lines in pairs.
    struct alignas(128) Seat {
        std::atomic<int> gate{threads_room::shut};
        bool asleep = false;                           // under the mutex
        std::atomic<uint64_t> share{0};                // the first of its tasks << 32 | behind the last one
        Call call = nullptr;                           // these two are read inside only
        const void* context = nullptr;
    };

    // A line of its own for what every run writes: the others read theirs while tasks are taken.
    struct alignas(128) OfCaller {
        std::mutex one;                                // held for a whole run()
        std::atomic<uint64_t> runs{0};
        std::atomic<int> sleepers{0};
    } caller;
    std::mutex mutex;                                  // of the two condition variables, sleepers' seats and of `error`
    std::condition_variable wake, done;
    std::vector<Seat> seats;                           // the caller's first
    std::exception_ptr error;
    std::atomic<int64_t> failed{INT64_MAX};            // the lowest number that threw
    std::vector<std::thread> workers;
    const unsigned made_in = threads_room::generation();

    explicit State(int threads) : seats(size_t(threads)) {}

    bool forked() const { return made_in != threads_room::forks.load(std::memory_order_relaxed); }

    // The next task of this thread, else the last one of another; -1: there is none.
    int64_t take(int thread, int threads) {
        for (int i = 0; i < threads; ++i) {
            std::atomic<uint64_t>& share = seats[size_t((thread + i) % threads)].share;
            uint64_t now = share.load(std::memory_order_relaxed);
            for (uint64_t first, end; (first = now >> 32) < (end = now & UINT32_MAX);) {
                const uint64_t then = i == 0 ? now + (uint64_t(1) << 32) : now - 1;
                if (share.compare_exchange_weak(now, then, std::memory_order_relaxed))
                    return int64_t(i == 0 ? first : end - 1);
            }
        }
        return -1;
    }

    // Every number below a failing one is run, so the lowest failing number wins, on any machine.
    void run_tasks(int thread, int threads, Call call, const void* context) {
        const void* outer = std::exchange(threads_room::running_pool, this);
        for (int64_t number; (number = take(thread, threads)) >= 0;) {
            if (number > failed.load(std::memory_order_relaxed)) continue;
            try {
                call(context, number, thread);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (number < failed.load()) { error = std::current_exception(); failed.store(number); }
            }
        }
        threads_room::running_pool = outer;
    }

    // Each thread a range of neighbours, which so reads memory from one end to the other.
    void open_seats(int64_t count, int threads, Call call, const void* context) {
        const auto first = [&](int thread) { return uint64_t((count * thread + threads - 1) / threads); };
        for (int t = 0; t < threads; ++t)
            seats[size_t(t)].share.store(first(t) << 32 | first(t + 1), std::memory_order_relaxed);
        if (threads == 1) return;
        for (int t = 1; t < threads; ++t) {
            Seat& seat = seats[size_t(t)];
            seat.call = call;
            seat.context = context;
            seat.gate.store(threads_room::open, std::memory_order_release);
        }
        caller.runs.fetch_add(1, std::memory_order_relaxed);
        wake_sleepers(threads);
    }

    bool enter(Seat& seat) {
        int expected = threads_room::open;
        return seat.gate.compare_exchange_strong(expected, threads_room::taken, std::memory_order_acquire);
    }

    void leave(Seat& seat) {
        if (seat.gate.exchange(threads_room::shut) != threads_room::awaited) return;
        { const std::lock_guard lock(mutex); }         // the caller is waiting by now
        done.notify_one();
    }

    void sleep(Seat& seat) {
        std::unique_lock lock(mutex);
        // before the test of the gate: a caller that opens it later sees it and notifies
        seat.asleep = true;
        caller.sleepers.fetch_add(1);
        wake.wait(lock, [&] { return seat.gate.load() != threads_room::shut; });
        caller.sleepers.fetch_sub(1);
        seat.asleep = false;
    }

    void worker(int thread) {
        Seat& seat = seats[size_t(thread)];
        uint64_t seen = 0;                             // runs of few tasks are not for all, but keep all awake
        for (threads_room::Patience patience;;) {
            const int gate = seat.gate.load(std::memory_order_relaxed);
            if (gate == threads_room::torn_down) return;
            if (gate == threads_room::open && enter(seat)) {
                run_tasks(thread, int(seats.size()), seat.call, seat.context);
                leave(seat);
                patience = {};
            } else if (!patience.left()) {
                const uint64_t now = caller.runs.load(std::memory_order_relaxed);
                if (std::exchange(seen, now) == now) sleep(seat);
                patience = {};
            }
        }
    }

    // Adding nothing is what orders the gates before it, where a load could be made before they are seen.
    void wake_sleepers(int threads) {
        if (caller.sleepers.fetch_add(0) == 0) return;
        const auto asleep = [](const Seat& s) { return s.asleep; };
        {
            const std::lock_guard lock(mutex);
            if (std::none_of(seats.begin() + 1, seats.begin() + threads, asleep)) return;
        }
        wake.notify_all();
    }

    void wait_for(Seat& seat) {
        for (threads_room::Patience patience; patience.left();)
            if (seat.gate.load(std::memory_order_acquire) == threads_room::shut) return;
        std::unique_lock lock(mutex);
        int expected = threads_room::taken;
        if (!seat.gate.compare_exchange_strong(expected, threads_room::awaited)) return;
        done.wait(lock, [&] { return seat.gate.load() == threads_room::shut; });
    }

    void shut_seats(int threads) {
        for (int t = 1; t < threads; ++t) {
            Seat& seat = seats[size_t(t)];
            int gate = seat.gate.load();               // first, as an exchange that fails takes the line all the same
            if (gate == threads_room::open && seat.gate.compare_exchange_strong(gate, threads_room::shut)) continue;
            if (gate != threads_room::shut) wait_for(seat);
        }
    }

    void join() {
        for (Seat& seat : seats) seat.gate.store(threads_room::torn_down);
        { const std::lock_guard lock(mutex); }
        wake.notify_all();
        for (std::thread& w : workers) w.join();
    }
};

ThreadPool::Alone::Alone(bool alone) : before_(std::exchange(threads_room::alone, alone || threads_room::alone)) {}
ThreadPool::Alone::~Alone() { threads_room::alone = before_; }

ThreadPool::ThreadPool(int threads) {
    if (threads < 0 || threads > most)
        fail(Errc::argument, "threads: ", threads, " is not between 0 (every core) and ", most);
    size_ = threads ? threads : std::min(usable_threads(), most);
    state_ = std::make_unique<State>(size_);
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
    if (count > INT32_MAX) fail(Errc::argument, "threads: ", count, " tasks at a time, at most ", INT32_MAX);
    if (threads_room::running_pool == &s) fail(Errc::argument, "threads: a task called run() of its own pool");
    if (s.forked()) {
        for (int64_t number = 0; number < count; ++number) call(context, number, 0);
        return;
    }
    const std::lock_guard only(s.caller.one);
    // the seats are shut here: nobody reads what is written
    const int threads = threads_room::alone ? 1 : int(std::min<int64_t>(size_, count));
    s.open_seats(count, threads, call, context);
    s.run_tasks(0, threads, call, context);
    s.shut_seats(threads);
    if (!s.error) return;
    s.failed.store(INT64_MAX);
    std::rethrow_exception(std::exchange(s.error, nullptr));
}

}}  // namespace qlora
