// keys.h - a terminal in raw mode, and what is typed there: keys, and pastes as one piece.
#pragma once
#include <string>

#if !defined(_WIN32)
#include <termios.h>
#endif

namespace program {

// For as long as one line is edited. The terminal marks what is pasted (bracketed paste), where it can. Not on Windows:
// its console edits lines itself.
class RawMode {
public:
#if defined(_WIN32)
    static constexpr bool available = false;
    RawMode() {}
    ~RawMode() {}
#else
    static constexpr bool available = true;
    RawMode();
    ~RawMode();
#endif
    RawMode(const RawMode&) = delete;
#if !defined(_WIN32)
private:
    termios before_{};
    bool active_ = false;
#endif
};

// Bytes below 256 are themselves (Ctrl-A is 1); of the others:
enum Key : int {
    key_left = 256, key_right, key_up, key_down, key_home, key_end, key_delete, key_escape,
    key_word_left, key_word_right, key_kill_word, key_kill_word_back, key_new_line, key_paste, key_text, key_none
};

// The next key; -1 where the input ends or a signal came. text: with key_text one whole character beyond ASCII, with
// key_paste all that was pasted, with line breaks as \n and without other control characters than tabs.
int read_key(std::string& text);

}  // namespace program
