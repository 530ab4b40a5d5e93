// exclusive.h - for things that one caller at a time may use: a second one gets an error where there would be a data
// race.
#pragma once
#include "src/base/error.h"

#include <atomic>

namespace qlora { inline namespace QLORA_ABI {

class Exclusive {                                      // for as long as it lives, the flag is taken
public:
    Exclusive(std::atomic_flag& busy, const char* what) : busy_(busy) {
        if (busy_.test_and_set(std::memory_order_acquire))
            fail(Errc::argument, what,
                 ": in use already, by another thread or by a callback of a call that has not returned; one call at a "
                 "time, or an object for each thread");
    }
    ~Exclusive() { busy_.clear(std::memory_order_release); }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;
private:
    std::atomic_flag& busy_;
};

}}  // namespace qlora
