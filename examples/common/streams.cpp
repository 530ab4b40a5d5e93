// streams.cpp - the standard streams.
#include "examples/common/streams.h"

#include "examples/common/interrupt.h"

#include "qlora.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace program {

#if !defined(_WIN32)                                   // else see windows.cpp
void hold_standard_streams() {
    for (int fd = 0; fd <= 2; ++fd)                    // in this order: open() gives the lowest number that is free
        if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF && ::open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) < 0)
            return;
}

bool is_piped(int fd) {
    struct stat what{};
    return ::fstat(fd, &what) == 0 && (S_ISFIFO(what.st_mode) || S_ISREG(what.st_mode) || S_ISSOCK(what.st_mode));
}

std::vector<std::string> arguments(int argc, char** argv) { return {argv, argv + argc}; }

int64_t read_input(char* to, size_t bytes) { return ::read(0, to, bytes); }

bool input_waits() {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(0, &set);
    timeval wait{2, 0};
    return ::select(1, &set, nullptr, nullptr, &wait) != 0;
}
#endif

std::string output_error() {
    errno = 0;
    const bool flushed = std::fflush(stdout) == 0;
    const int code = errno;
    if (flushed && !std::ferror(stdout)) return "";
    return std::string("writing to the standard output failed") +
           (flushed || code == 0 ? "" : std::string(": ") + std::strerror(code));
}

bool read_line(std::string& line) {
    static std::string ahead;                          // read and not yet handed out
    static size_t at = 0;
    line.clear();
    while (true) {
        const size_t end = ahead.find('\n', at);
        if (end != std::string::npos) {
            line.append(ahead, at, end - at);
            at = end + 1;
            return true;
        }
        line.append(ahead, at, std::string::npos);
        at = 0;
        ahead.resize(65536);
        const int64_t got = read_input(ahead.data(), ahead.size());
        const int code = errno;
        ahead.resize(got > 0 ? size_t(got) : 0);
        if (got == 0) return !line.empty();
        if (got < 0 && code == EINTR && interrupted()) return false;
        if (got < 0 && code != EINTR)
            throw qlora::Error(qlora::Errc::io, std::string("reading the standard input: ") + std::strerror(code));
    }
}

std::string read_all() {
    if (!input_waits())
        std::fprintf(stderr, "(reading the standard input to its end; < /dev/null has none)\n");
    std::string all, line;
    while (read_line(line)) all += line + '\n';
    return all;
}

}  // namespace program
