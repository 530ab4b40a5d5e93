// interrupt.cpp - Ctrl-C as a request.
#include "examples/common/interrupt.h"

#include <csignal>
#include <unistd.h>

namespace program {

static volatile std::sig_atomic_t pending = 0;

extern "C" {
static void on_signal(int signal) {
    if (pending) ::_exit(128 + signal);                // asked twice: whatever is on disk is complete, so leaving at once is safe
    pending = signal;
}
}

void catch_interrupts() {
    struct sigaction action{};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);                      // no SA_RESTART: a read() at a prompt returns, so that the program can look
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);                     // a closed pipe is a failed write, not a death
    std::signal(SIGXFSZ, SIG_IGN);                     // so is a file at its size limit
}

int interrupted() { return pending; }
void clear_interrupt() { pending = 0; }

}  // namespace program
