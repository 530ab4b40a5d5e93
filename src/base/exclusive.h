// exclusive.h - for things that one caller at a time may use: a second one gets an error where there would be a data
// race.
#pragma once
#include "src/base/error.h"

#include <atomic>
#include <thread>

namespace qlora { inline namespace QLORA_ABI {

// Of the thing: whether a call uses it.
class Busy {
public:
    void take(const char* what) {
        State idle = State::idle;
        if (!state_.compare_exchange_strong(idle, State::taken, std::memory_order_acquire))
            fail(Errc::argument, what,
                 ": in use already, by another thread or by a callback of a call that has not returned; one call at a "
                 "time, or an object for each thread");
        owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    }
    // True: the thing was abandoned meanwhile, and who leaves it deletes it.
    bool leave() {
        owner_.store({}, std::memory_order_relaxed);
        return state_.exchange(State::idle, std::memory_order_acq_rel) == State::abandoned;
    }
    // For its owner, who wants it gone. False: nobody uses it, so the owner deletes it.
    bool abandon() {
        State taken = State::taken;
        return state_.compare_exchange_strong(taken, State::abandoned, std::memory_order_acq_rel);
    }
    // So that what asks runs within a call, as its callbacks do.
    bool taken_here() const { return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }
private:
    enum class State { idle, taken, abandoned };
    std::atomic<State> state_{State::idle};
    std::atomic<std::thread::id> owner_{};
};

class Exclusive {                                      // for as long as it lives, the thing is taken
public:
    Exclusive(Busy& busy, const char* what) : busy_(busy) { busy_.take(what); }
    ~Exclusive() { busy_.leave(); }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;
private:
    Busy& busy_;
};

// A look that the callbacks of a running call may take too.
class Look {
public:
    Look(Busy& busy, const char* what) : busy_(busy.taken_here() ? nullptr : &busy) { if (busy_) busy_->take(what); }
    ~Look() { if (busy_) busy_->leave(); }
    Look(const Look&) = delete;
    Look& operator=(const Look&) = delete;
private:
    Busy* busy_;
};

}}  // namespace qlora
