// terminal.cpp - terminals, colours, sizes.
#include "examples/common/terminal.h"

#include "examples/common/graphemes.h"

#if !defined(_WIN32)
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace program {

#if !defined(_WIN32)                                   // else see windows.cpp
bool is_terminal(int fd) { return ::isatty(fd) == 1; }

int columns(int fd) {
    winsize size{};
    return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

int64_t peak_memory() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
    return int64_t(usage.ru_maxrss);
#else
    return int64_t(usage.ru_maxrss) * 1024;
#endif
}
#endif

bool colours(int fd) {
    const char* no = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    return is_terminal(fd) && !(no && *no) && !(term && std::strcmp(term, "dumb") == 0);
}

std::string styled(const std::string& text, Style style, int fd) {
    static const char* const codes[] = {"0", "1", "2", "31", "32", "33", "36"};
    if (style == Style::plain || !colours(fd)) return text;
    return std::string("\033[") + codes[int(style)] + 'm' + text + "\033[0m";
}

static std::string scaled(double value, const char* const* units, int count) {
    int unit = 0;
    while (std::fabs(value) >= 999.95 && unit + 1 < count) value /= 1000, ++unit;
    char text[48];
    std::snprintf(text, sizeof text, unit == 0 ? "%.0f%s%s" : "%.1f%s%s", value, *units[unit] ? " " : "", units[unit]);
    return text;
}

std::string human_bytes(int64_t bytes) {
    static const char* const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    return scaled(double(bytes), units, 6);
}

std::string human_count(double count) {
    static const char* const units[] = {"", "k", "M", "G", "T"};
    return scaled(count, units, 5);
}

std::string human_time(double seconds) {
    char text[48];
    if (!std::isfinite(seconds) || seconds < 0) return "?";
    if (seconds < 10) std::snprintf(text, sizeof text, "%.1fs", seconds);
    else if (seconds < 60) std::snprintf(text, sizeof text, "%.0fs", seconds);
    else if (seconds < 3600) std::snprintf(text, sizeof text, "%dm %02ds", int(seconds) / 60, int(seconds) % 60);
    else
        std::snprintf(text, sizeof text, "%lldh %02dm", static_cast<long long>(seconds / 3600),
                      int(std::fmod(seconds, 3600)) / 60);
    return text;
}

void Progress::write(const std::string& text) const {
    FILE* out = fd_ == 2 ? stderr : stdout;
    std::fwrite(text.data(), 1, text.size(), out);
    std::fflush(out);
}

void Progress::update(const std::string& line) {
    if (!live_) return write(line + '\n');
    write("\r\033[K" + first_columns(line, columns(fd_) - 1));
    open_ = true;
}

void Progress::print(const std::string& line) {
    write((open_ ? "\r\033[K" : "") + line + '\n');
    open_ = false;
}

void Progress::finish() {
    if (open_) write("\n");
    open_ = false;
}

}  // namespace program
