// threads.h - a pool that runs numbered tasks. What a task computes depends on its number only, never on the thread
// that runs it or on how many there are: that is how results stay identical for every thread count.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

class ThreadPool {
public:
    static constexpr int most = most_threads;          // far beyond what products of one model can use
    explicit ThreadPool(int threads = 0);              // 0 = usable_threads(); the caller is one of the threads
    int size() const { return size_; }

    // While one exists, run() calls of this thread stay on this thread: for work so small that waking others costs
    // more.
    class Alone {
    public:
        explicit Alone(bool alone = true);
        ~Alone();
        Alone(const Alone&) = delete;
        Alone& operator=(const Alone&) = delete;
    private:
        bool before_;
    };

    // Calls task(number, thread) once for each number in [0, count), count < 2^31, thread in [0, size()); returns when
    // all are done. Neighbours are mostly of one thread; who is done first helps the others.
    // The first exception of a task is rethrown here after the others have finished. Not reentrant: one run() at a time
    // (a second caller waits). Tasks must not call run() of the same pool. In a forked child, which has none of the
    // threads, the caller does it all.
    template <class Task>
    void run(int64_t count, const Task& task) {
        run_erased(
            count,
            [](const void* context, int64_t number, int thread) {
                (*static_cast<const Task*>(context))(number, thread);
            },
            &task);
    }

    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
private:
    using Call = void (*)(const void* context, int64_t number, int thread);
    void run_erased(int64_t count, Call call, const void* context);
    struct State;
    std::unique_ptr<State> state_;
    int size_ = 1;
};

}}  // namespace qlora
