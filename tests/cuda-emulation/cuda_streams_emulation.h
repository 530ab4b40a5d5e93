// cuda_streams_emulation.h - streams, events and captured graphs: lists of work that is done as late as possible.
//
// Nothing happens when work is queued. Waiting for a stream does its work, and of other streams either no more than it
// needs or anything that could run by then, drawn by the seed: a wait that is missing shows as a wrong result. A
// failure empties all streams, as a device that is lost.
#pragma once
#include "tests/cuda-emulation/cuda_memory_emulation.h"

#include <deque>
#include <set>
#include <thread>

namespace cuda_emulation {

// How often an event was put into streams, and how many of those have come up.
struct EventState { uint64_t recorded = 0, done = 0; };

struct Entry {
    std::function<void()> work;
    std::shared_ptr<EventState> record, wait;
    uint64_t ticket = 0;                               // the record that it waits for
    bool is_ready() const { return !wait || wait->done >= ticket; }
};

// Work in the order that its edges allow.
struct Graph {
    struct Step {
        std::function<void()> work;
        std::vector<size_t> after;
    };
    std::vector<Step> steps;
};
struct Capture {
    Graph graph;
    std::thread::id thread;                            // which may not wait or allocate meanwhile; none: nobody may
    bool is_broken = false;
    std::set<struct Queue*> streams;
};

struct Queue {
    std::deque<Entry> entries;
    bool is_destroyed = false;
    std::shared_ptr<Capture> capture;                  // null: work is for the device
    std::vector<size_t> tail;                          // what the next captured step comes after
};

struct Draw {                                          // splitmix64
    uint64_t state = 0;
    uint64_t below(uint64_t n) {
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return (z ^ z >> 31) % n;
    }
};

struct Streams {
    std::recursive_mutex mutex;                        // of all functions of the runtime
    Queue first;                                       // stream 0: waits for no other here
    std::vector<Queue*> all{&first};
    uint64_t waits = 0;                                // so far: each draws anew

    bool any() const {
        return std::any_of(all.begin(), all.end(), [](const Queue* q) { return !q->entries.empty(); });
    }
    int64_t queued() const {
        int64_t n = 0;
        for (const Queue* q : all) n += int64_t(q->entries.size());
        return n;
    }
    // The stream whose next entry brings `q` forward.
    Queue* source_of(Queue* q) const {
        for (size_t turns = 0; q && !q->entries.front().is_ready(); ++turns) {
            const auto& event = q->entries.front().wait;
            const auto at = std::find_if(all.begin(), all.end(), [&](const Queue* other) {
                return std::any_of(other->entries.begin(), other->entries.end(),
                                   [&](const Entry& e) { return e.record == event; });
            });
            if (at == all.end() || turns > all.size()) throw Failure("a stream waits for an event that never comes");
            q = *at;
        }
        return q;
    }
    void step(Queue& q) {
        const Entry e = std::move(q.entries.front());
        q.entries.pop_front();
        if (e.work) e.work();
        if (e.record) ++e.record->done;
        memory().throw_error();
        if (q.is_destroyed && q.entries.empty()) remove(&q);
    }
    void remove(Queue* q) {
        std::erase(all, q);
        delete q;
    }
    // Works until `reached`, for the sake of the stream `whose` (null: of all).
    template <class F>
    void work_until(Queue* whose, const F& reached) {
        memory().throw_error();
        if (reached()) return;
        Draw draw{options.seed * 1'000'003 + ++waits};
        const bool no_more_than_needed = whose && draw.below(2);
        try {
            const Open open;
            while (!reached()) {
                std::vector<Queue*> ready;
                for (Queue* q : all)
                    if (!q->entries.empty() && q->entries.front().is_ready()) ready.push_back(q);
                if (ready.empty() && !any()) break;
                if (ready.empty()) throw Failure("a stream waits for an event that never comes");
                step(no_more_than_needed ? *source_of(whose) : *ready[draw.below(ready.size())]);
            }
        } catch (...) {
            lose();
            throw;
        }
        memory().throw_error();
    }
    void finish(Queue& q) {
        work_until(&q, [&q] { return q.entries.empty(); });
    }
    void finish_all() {
        work_until(nullptr, [this] { return !any(); });
    }
    // For functions that cannot throw: what fails is said at once, and thrown by the next one that can.
    template <class F> static void quietly(const F& f) {
        try {
            f();
        } catch (const std::exception& e) {
            std::fprintf(stderr, "cuda emulation: %s\n", e.what());
            memory().error = e.what();
        }
    }
    void lose() {
        for (size_t i = all.size(); i-- > 0;) {
            for (const Entry& e : all[i]->entries)
                if (e.record) e.record->done = e.record->recorded;
            all[i]->entries.clear();
            if (all[i]->is_destroyed) remove(all[i]);
        }
    }
    // ---- Adding to a stream, or to what it captures.
    void add(Queue& q, std::function<void()> work) {
        if (!q.capture) {
            q.entries.push_back({std::move(work), nullptr, nullptr, 0});
            return;
        }
        auto& steps = q.capture->graph.steps;
        steps.push_back({std::move(work), q.tail});
        q.tail = {steps.size() - 1};
    }
};
inline Streams& streams() {
    static Streams* const all = new Streams;
    return *all;
}
inline int64_t queued_work() { return streams().queued(); }

// Runs a graph's steps in an order that its edges allow.
inline void run_steps(const Graph& g, uint64_t seed) {
    Draw draw{seed};
    std::vector<char> done(g.steps.size());
    for (size_t n = 0; n < g.steps.size(); ++n) {
        std::vector<size_t> ready;
        for (size_t i = 0; i < g.steps.size(); ++i)
            if (!done[i] && std::all_of(g.steps[i].after.begin(), g.steps[i].after.end(),
                                        [&](size_t before) { return done[before]; }))
                ready.push_back(i);
        const size_t i = ready[draw.below(ready.size())];
        g.steps[i].work();
        memory().throw_error();
        done[i] = 1;
    }
}

// Runs `body` once for every thread of the grid, now: for tests of kernels that need no stream.
inline void run(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& body) {
    {
        const Open open;
        run_grid(grid, threads, shared_bytes, body, options);
    }
    memory().throw_error();
}
inline void run(dim3 grid, unsigned threads, const std::function<void()>& body) { run(grid, threads, 0, body); }

}  // namespace cuda_emulation
