// history.h - what was typed at a prompt, in this session and in those before it.
//
// The file has one entry a line, \n and \\ for line breaks and backslashes; entries are appended one by one, so that
// several programs can share it.
#pragma once
#include <string>
#include <vector>

namespace program {

class History {
public:
    // Reads the newest entries; a file that cannot be read is an empty one, and nothing is written to an empty name.
    void open(const std::string& file);
    // Not what is empty, is what was typed just before, or begins with a space: that is how one keeps a line out of it.
    void add(const std::string& text);
    const std::vector<std::string>& entries() const { return entries_; }       // oldest first
    const std::string& error() const { return error_; }                        // why the file could not be written
private:
    std::vector<std::string> entries_;
    std::string file_, error_;
};

// $XDG_STATE_HOME/qlora/NAME, without it ~/.local/state/qlora/NAME; "" where there is no home.
std::string state_file(const std::string& name);

}  // namespace program
