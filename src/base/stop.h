// stop.h - how a caller ends work that somebody else's file makes long: reading it, tokenizing, chat templates,
// loading, measuring. Loops there ask check_stop() between units of work that take far less than a second. What has
// to be finished whatever happens (a save of a run, a clean-up) is done where no StopScope lives. The library asks
// only on the thread that called it, and installs no signal handler.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

using StopQuestion = bool (*)();
inline constinit thread_local StopQuestion stop_wanted = nullptr;

// While one lives, the work of this thread fails as soon as `wanted` says so.
class StopScope {
public:
    explicit StopScope(StopQuestion wanted) : before_(stop_wanted) { stop_wanted = wanted; }
    ~StopScope() { stop_wanted = before_; }
    StopScope(const StopScope&) = delete;
private:
    StopQuestion before_;
};

// Whoever catches Errors to try something else need not know: `wanted` is asked again.
inline void check_stop() {
    if (stop_wanted && stop_wanted()) fail(Errc::cancelled, "stopped");
}

// A callback of the caller said no.
[[noreturn]] inline void cancelled(const char* what) { fail(Errc::cancelled, what, ": cancelled"); }

}}  // namespace qlora
