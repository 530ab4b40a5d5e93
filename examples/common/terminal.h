// terminal.h - what a program shows: one updating progress line (or plain lines), colours that NO_COLOR turns off,
// sizes for people.
#pragma once
#include <cstdint>
#include <string>

namespace program {

bool is_terminal(int fd);                              // 0 = stdin, 1 = stdout, 2 = stderr
bool colours(int fd);                                  // a terminal, NO_COLOR unset, TERM not "dumb"
int columns(int fd);                                   // width of the terminal, 80 when unknown

enum class Style { plain, bold, dim, red, green, yellow, cyan };
std::string styled(const std::string& text, Style style, int fd = 1);   // unchanged where there are no colours

std::string human_bytes(int64_t bytes);                // "92.1 MB" (powers of 1000, as file managers and disks count)
std::string human_count(double count);                 // "134.5 M"
std::string human_time(double seconds);                // "3m 07s"
int64_t peak_memory();                                 // bytes this process held at most, as the system counts

// One line that is rewritten in place on a terminal; elsewhere every update is a line of its own.
class Progress {
public:
    explicit Progress(int fd = 1) : fd_(fd), live_(is_terminal(fd)) {}
    ~Progress() { finish(); }
    bool live() const { return live_; }
    void update(const std::string& line);
    void print(const std::string& line);               // a line that stays, above the live one
    void finish();                                     // leaves the live line where it is
private:
    int fd_;
    bool live_, open_ = false;
    void write(const std::string& text) const;
};

}  // namespace program
