// interrupt.cpp - Ctrl-C as a request.
#include "examples/common/interrupt.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <unistd.h>
#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

namespace program {

static volatile std::sig_atomic_t pending = 0;

// The answer is written by the handler itself, so it lies ready in one of two buffers: the handler never sees one that
// is being filled.
static char answers[2][256];
static std::atomic<int> ready{-1};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" {
static void on_signal(int signal) {
    if (pending) ::_exit(128 + signal);    // asked twice: whatever is on disk is complete, so leaving at once is safe
    pending = signal;
    const int which = ready.load();
    if (which < 0) return;
    const int error = errno;
    const auto bytes = unsigned(std::strlen(answers[which]));
    if (::write(2, answers[which], bytes) < 0) {}      // a closed terminal: nobody to tell
    errno = error;
}
}

#if defined(_WIN32)
// In a thread of the system's. Who closes the window gets as long as the system gives it, a few seconds.
static BOOL WINAPI on_event(DWORD event) {
    on_signal(event == CTRL_C_EVENT ? SIGINT : SIGTERM);
    if (event == CTRL_CLOSE_EVENT) ::Sleep(INFINITE);
    return TRUE;
}

void catch_interrupts() { ::SetConsoleCtrlHandler(on_event, TRUE); }
#else
void catch_interrupts() {
    struct sigaction action{}, before{};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);    // no SA_RESTART: a read() at a prompt returns, so that the program can look
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    if (sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);                     // a closed pipe is a failed write, not a death
    std::signal(SIGXFSZ, SIG_IGN);                     // so is a file at its size limit
}
#endif

int interrupted() { return pending; }
void clear_interrupt() { pending = 0; }

void answer_interrupt(const std::string& line) {
    const int next = line.empty() ? -1 : ready.load() == 0 ? 1 : 0;
    if (next >= 0) {
        const std::string text = '\n' + line.substr(0, sizeof answers[0] - 3) + '\n';
        std::memcpy(answers[next], text.c_str(), text.size() + 1);
    }
    ready.store(next);
}

}  // namespace program
