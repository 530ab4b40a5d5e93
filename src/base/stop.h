// stop.h - how a caller ends work that somebody else's file makes long: reading it, tokenizing, chat templates,
// loading, measuring. Loops there ask check_stop() between units of work that take far less than a second. What has
// to be finished whatever happens (a save of a run, a clean-up) is done where no StopScope lives. The library asks
// only on the thread that called it, and installs no signal handler.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

inline constinit thread_local const std::function<bool()>* stop_question = nullptr;    // of the innermost StopScope

// Whoever catches Errors to try something else need not know: the question is asked again.
inline void check_stop() {
    if (stop_question && !(*stop_question)()) fail(Errc::cancelled, "stopped");
}

// A callback of the caller said no.
[[noreturn]] inline void cancelled(const char* what) { fail(Errc::cancelled, what, ": cancelled"); }

}}  // namespace qlora
