// lineedit.h - reading what a person types: a line that can be edited, with history; several lines by a trailing
// backslash or """ blocks. Where input is not a terminal, plain lines are read and nothing is printed.
#pragma once
#include <string>
#include <vector>

namespace program {

class LineEditor {
public:
    // cancelled: Ctrl-C; end: Ctrl-D on an empty line, or the end of the input
    enum class Result { text, cancelled, end };
    LineEditor();
    Result read(const std::string& prompt, std::string& text);   // one message, of one or of several lines
    bool interactive() const { return interactive_; }

private:
    bool interactive_;
    std::vector<std::string> history_;
    Result read_line(const std::string& prompt, std::string& line);
    Result edit(const std::string& prompt, std::string& line);
};

}  // namespace program
