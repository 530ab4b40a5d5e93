// lineedit.h - reading what a person types: a line that can be edited, with history; several lines by a paste,
// Alt-Enter, a trailing backslash or """ blocks. Where input is not a terminal, plain lines are read and nothing is
// printed.
#pragma once
#include "examples/common/history.h"

#include <string>

namespace program {

class LineEditor {
public:
    // cancelled: Ctrl-C; end: Ctrl-D on an empty line, or the end of the input
    enum class Result { text, cancelled, end };
    LineEditor();
    Result read(const std::string& prompt, std::string& text);   // one message, of one or of several lines
    bool interactive() const { return interactive_; }
    History& history() { return history_; }

private:
    bool interactive_;
    History history_;
    std::string killed_;                               // the last piece that was cut, for Ctrl-Y
    Result read_line(const std::string& prompt, std::string& line);
    Result edit(const std::string& prompt, std::string& line);
};

}  // namespace program
