// keys.cpp - bytes of a terminal as keys: the sequences that xterm and all that call themselves like it send.
#include "examples/common/keys.h"

#if !defined(_WIN32)
#include "examples/common/interrupt.h"

#include <sys/select.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace program {

namespace keys {

void send(const char* sequence) {
    std::fputs(sequence, stdout);
    std::fflush(stdout);
}

int read_byte() {
    unsigned char c = 0;
    ssize_t got = 0;
    // a signal is not the end of the input
    do got = ::read(0, &c, 1); while (got < 0 && errno == EINTR && !interrupted());
    return got == 1 ? c : -1;
}

bool more_input() {                                    // does an escape sequence follow, or was it the Escape key?
    fd_set set;
    FD_ZERO(&set);
    FD_SET(0, &set);
    timeval wait{0, 30000};
    return ::select(1, &set, nullptr, nullptr, &wait) > 0;
}

// Everything up to the end mark. A paste that holds the mark itself ends there; what follows is typed.
int paste(std::string& text) {
    const std::string end = "\033[201~";
    std::string all;
    while (!all.ends_with(end)) {
        const int c = read_byte();
        if (c < 0) return -1;
        all += char(c);
    }
    all.resize(all.size() - end.size());
    text.clear();
    for (size_t i = 0; i < all.size(); ++i) {
        const auto c = static_cast<unsigned char>(all[i]);
        if (c == '\r') text += i + 1 < all.size() && all[i + 1] == '\n' ? "" : "\n";
        else if (c == '\n' || c == '\t' || (c >= 32 && c != 127)) text += char(c);
    }
    return key_paste;
}

// ESC [ NUMBER ; MODIFIER LETTER, with or without the numbers. A modifier of 3 is Alt, of 5 Ctrl.
int sequence(std::string& text) {
    int number[2] = {0, 0}, part = 0, c = read_byte();
    while ((c >= '0' && c <= '9') || c == ';') {
        if (c == ';') part = 1;
        else if (number[part] < 1000) number[part] = number[part] * 10 + (c - '0');
        c = read_byte();
    }
    const bool word = number[1] == 3 || number[1] == 5;
    switch (c) {
        case 'A': return key_up;
        case 'B': return key_down;
        case 'C': return word ? key_word_right : key_right;
        case 'D': return word ? key_word_left : key_left;
        case 'H': return key_home;
        case 'F': return key_end;
        case '~': break;
        default: return key_none;
    }
    switch (number[0]) {
        case 1: case 7: return key_home;
        case 4: case 8: return key_end;
        case 3: return word ? key_kill_word : key_delete;
        case 200: return paste(text);
        default: return key_none;
    }
}

int escaped(std::string& text) {
    if (!more_input()) return key_escape;
    switch (read_byte()) {
        case '[': case 'O': return sequence(text);
        case 'b': return key_word_left;
        case 'f': return key_word_right;
        case 'd': return key_kill_word;
        case 8: case 127: return key_kill_word_back;
        case '\r': case '\n': return key_new_line;
        default: return key_none;
    }
}

}  // namespace keys

RawMode::RawMode() {
    if (::tcgetattr(0, &before_) != 0) return;
    termios raw = before_;
    raw.c_iflag &= ~tcflag_t(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~tcflag_t(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    active_ = ::tcsetattr(0, TCSADRAIN, &raw) == 0;
    if (active_) keys::send("\033[?2004h");
}

RawMode::~RawMode() {
    if (!active_) return;
    keys::send("\033[?2004l");
    ::tcsetattr(0, TCSADRAIN, &before_);
}

int read_key(std::string& text) {
    const int c = keys::read_byte();
    if (c == 27) return keys::escaped(text);
    if (c < 0x80) return c;
    // A character of several bytes arrives byte by byte.
    text.assign(1, char(c));
    const size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    while (text.size() < length && keys::more_input()) {
        const int next = keys::read_byte();
        if (next < 0) return -1;
        text += char(next);
        if ((next & 0xC0) != 0x80) break;
    }
    return key_text;
}

}  // namespace program
#endif
