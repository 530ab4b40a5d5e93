// lineedit.cpp - a small line editor: the terminal in raw mode, one line redrawn after every key, scrolled sideways
// when it is long.
//
//   arrows, Home, End, Ctrl-A/E/B/F    move            Backspace, Delete, Ctrl-D    delete a character
//   Ctrl-U, Ctrl-K, Ctrl-W             delete to the start, to the end, the word before
//   up, down, Ctrl-P/N                 history
//   Ctrl-C gives up, Ctrl-D on an empty line ends, Ctrl-L clears the screen
#include "examples/common/lineedit.h"

#include "examples/common/interrupt.h"
#include "examples/common/streams.h"
#include "examples/common/terminal.h"

#include <sys/select.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace program {

namespace lineedit {

struct RawMode {                                       // for as long as one line is edited
    termios before{};
    bool active = false;
    RawMode() {
        if (::tcgetattr(0, &before) != 0) return;
        termios raw = before;
        raw.c_iflag &= ~tcflag_t(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
        raw.c_lflag &= ~tcflag_t(ECHO | ICANON | IEXTEN | ISIG);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        active = ::tcsetattr(0, TCSADRAIN, &raw) == 0;
    }
    ~RawMode() { if (active) ::tcsetattr(0, TCSADRAIN, &before); }
    RawMode(const RawMode&) = delete;
};

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }        // inside a UTF-8 character

size_t after(const std::string& s, size_t at) {
    if (at < s.size()) do ++at; while (at < s.size() && continues(s[at]));
    return at;
}

size_t before(const std::string& s, size_t at) {
    if (at > 0) do --at; while (at > 0 && continues(s[at]));
    return at;
}

uint32_t code_point(const std::string& s, size_t at) {
    const auto lead = static_cast<unsigned char>(s[at]);
    if (lead < 0x80) return lead;
    uint32_t code = lead >= 0xF0 ? lead & 7 : lead >= 0xE0 ? lead & 15 : lead & 31;
    for (size_t i = at + 1; i < s.size() && continues(s[i]); ++i)
        code = code << 6 | (static_cast<unsigned char>(s[i]) & 63);
    return code;
}

// Columns of a character: wide East Asian ranges and emoji take two, combining marks none. The ranges are the coarse
// blocks, enough for a cursor.
int columns_of(uint32_t c) {
    if ((c >= 0x300 && c <= 0x36F) || (c >= 0x200B && c <= 0x200F) || (c >= 0xFE00 && c <= 0xFE0F)) return 0;
    const bool wide = (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
                      (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
                      (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFD);
    return wide ? 2 : 1;
}

int width(const std::string& s, size_t from, size_t to) {
    int sum = 0;
    for (size_t i = from; i < to; i = after(s, i)) sum += columns_of(code_point(s, i));
    return sum;
}

// Shows the part of the line around the cursor that fits.
void redraw(const std::string& prompt, const std::string& line, size_t cursor) {
    const int room = std::max(8, columns(1) - width(prompt, 0, prompt.size()) - 1);
    size_t from = 0;
    while (width(line, from, cursor) > room) from = after(line, from);
    size_t to = from;
    while (to < line.size() && width(line, from, after(line, to)) <= room) to = after(line, to);
    std::string out = "\r" + styled(prompt, Style::green) + line.substr(from, to - from) + "\033[K";
    const int back = width(line, cursor, to);
    if (back > 0) out.append("\033[").append(std::to_string(back)).append("D");
    std::fwrite(out.data(), 1, out.size(), stdout);
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

enum Key : int { key_left = 256, key_right, key_up, key_down, key_home, key_end, key_delete, key_none };

int read_escape() {
    if (!more_input()) return key_none;
    const int kind = read_byte();
    if (kind != '[' && kind != 'O') return key_none;
    int number = 0, c = read_byte();
    while ((c >= '0' && c <= '9') || c == ';') {
        number = c == ';' ? number : number * 10 + (c - '0');
        c = read_byte();
    }
    switch (c) {
        case 'A': return key_up;
        case 'B': return key_down;
        case 'C': return key_right;
        case 'D': return key_left;
        case 'H': return key_home;
        case 'F': return key_end;
        case '~':
            return number == 1 || number == 7   ? key_home
                   : number == 4 || number == 8 ? key_end
                   : number == 3                ? key_delete
                                                : key_none;
        default: return key_none;
    }
}

}  // namespace lineedit

LineEditor::LineEditor() : interactive_(is_terminal(0) && is_terminal(1)) {}

LineEditor::Result LineEditor::edit(const std::string& prompt, std::string& line) {
    const lineedit::RawMode raw;
    // entry: which line of the history is shown; its size() = the new one
    size_t cursor = 0, entry = history_.size();
    std::string unsent;
    line.clear();
    const auto recall = [&](size_t wanted) {
        if (entry == history_.size()) unsent = line;
        entry = wanted;
        line = entry == history_.size() ? unsent : history_[entry];
        cursor = line.size();
    };
    const auto leave = [&](Result result) {
        std::fputs("\n", stdout);
        std::fflush(stdout);
        return result;
    };
    for (;;) {
        lineedit::redraw(prompt, line, cursor);
        int key = lineedit::read_byte();
        if (key == 27) key = lineedit::read_escape();
        switch (key) {
            case -1: return leave(Result::end);
            case '\r': case '\n': return leave(Result::text);
            case 3: return leave(Result::cancelled);
            case 4:
                if (line.empty()) return leave(Result::end);
                [[fallthrough]];
            case lineedit::key_delete: line.erase(cursor, lineedit::after(line, cursor) - cursor); break;
            case 8: case 127: {
                const size_t start = lineedit::before(line, cursor);
                line.erase(start, cursor - start);
                cursor = start;
                break;
            }
            case 1: case lineedit::key_home: cursor = 0; break;
            case 5: case lineedit::key_end: cursor = line.size(); break;
            case 2: case lineedit::key_left: cursor = lineedit::before(line, cursor); break;
            case 6: case lineedit::key_right: cursor = lineedit::after(line, cursor); break;
            case 11: line.erase(cursor); break;
            case 21: line.erase(0, cursor); cursor = 0; break;
            case 23: {
                size_t start = cursor;
                while (start > 0 && line[start - 1] == ' ') --start;
                while (start > 0 && line[start - 1] != ' ') --start;
                line.erase(start, cursor - start);
                cursor = start;
                break;
            }
            case 12: std::fputs("\033[H\033[2J", stdout); break;
            case 16: case lineedit::key_up: if (entry > 0) recall(entry - 1); break;
            case 14: case lineedit::key_down: if (entry < history_.size()) recall(entry + 1); break;
            default:
                if (key == '\t') key = ' ';
                if (key >= 32 && key < 256) line.insert(cursor++, 1, char(key));
        }
        // A character of several bytes arrives byte by byte: the line is only drawn when it is whole.
        while (key >= 0xC0 && key < 256 && lineedit::more_input()) {
            const int next = lineedit::read_byte();
            if (next < 0) break;
            line.insert(cursor++, 1, char(next));
            const int length = key >= 0xF0 ? 4 : key >= 0xE0 ? 3 : 2;
            if (!lineedit::continues(char(next)) || int(cursor - lineedit::before(line, cursor)) >= length) break;
        }
    }
}

LineEditor::Result LineEditor::read_line(const std::string& prompt, std::string& line) {
    if (!interactive_) {
        if (!program::read_line(line)) return Result::end;
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return Result::text;
    }
    return edit(prompt, line);
}

LineEditor::Result LineEditor::read(const std::string& prompt, std::string& text) {
    Result result = read_line(prompt, text);
    if (result != Result::text) return result;
    const std::string more(prompt.size() > 4 ? 4 : prompt.size(), '.');
    const std::string fence = "\"\"\"";
    std::string line;
    if (text.rfind(fence, 0) == 0) {
        text.erase(0, fence.size());
        bool open = true, first = true;
        while (open) {
            if (const size_t close = text.find(fence); close != std::string::npos) { text.resize(close); break; }
            if (result = read_line(more + ' ', line); result != Result::text) {
                if (result == Result::cancelled) return result;
                break;
            }
            if (const size_t close = line.find(fence); close != std::string::npos) { line.resize(close); open = false; }
            if (!open && line.empty()) break;
            text += (first && text.empty() ? "" : "\n") + line;
            first = false;
        }
    } else {
        while (!text.empty() && text.back() == '\\') {
            text.pop_back();
            result = read_line(more + ' ', line);
            if (result == Result::cancelled) return result;
            if (result == Result::end) break;
            text += '\n' + line;
        }
    }
    if (interactive_ && !text.empty() && text.find('\n') == std::string::npos &&
        (history_.empty() || history_.back() != text))
        history_.push_back(text);
    return Result::text;
}

}  // namespace program
