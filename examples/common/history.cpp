// history.cpp - the entries of a prompt, and their file.
#include "examples/common/history.h"

#include "qlora.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;

#if defined(_WIN32)
#define O_CLOEXEC (O_NOINHERIT | O_BINARY)
constexpr const char* home_variable = "USERPROFILE";
#else
constexpr const char* home_variable = "HOME";
#endif
constexpr size_t most_entries = 1000;                  // what is kept of a file that has grown to twice as many

static std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '\n' ? "\\n" : c == '\\' ? "\\\\" : std::string(1, c);
    return out + '\n';
}

static std::string unescaped(const std::string& line) {
    std::string out;
    for (size_t i = 0; i < line.size(); ++i) {
        if (line[i] != '\\' || i + 1 == line.size()) out += line[i];
        else out += line[++i] == 'n' ? '\n' : line[i];
    }
    return out;
}

std::string state_file(const std::string& name) {
    const char *state = std::getenv("XDG_STATE_HOME"), *home = std::getenv(home_variable);
    // a relative one is to be ignored, says the standard
    if (state && *state == '/') return std::string(state) + "/qlora/" + name;
    return home && *home ? std::string(home) + "/.local/state/qlora/" + name : "";
}

void History::open(const std::string& file) {
    file_ = file;
    if (std::error_code unknown; file.empty() || !fs::is_regular_file(file, unknown)) return;
    std::string all;
    try {
        all = qlora::read_file(file, 64 << 20);
    } catch (const qlora::Error& error) {
        error_ = error.what();
        return;
    }
    for (size_t from = 0, to; (to = all.find('\n', from)) != std::string::npos; from = to + 1)
        entries_.push_back(unescaped(all.substr(from, to - from)));
    if (entries_.size() < 2 * most_entries) return;
    entries_.erase(entries_.begin(), entries_.end() - int64_t(most_entries));
    std::string kept;
    for (const std::string& entry : entries_) kept += escaped(entry);
    try {
        qlora::write_file_atomic(file, kept);
        fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
    } catch (const std::exception& error) {            // it stays long, which harms nobody
        error_ = error.what();
    }
}

void History::add(const std::string& text) {
    if (text.empty() || text[0] == ' ' || (!entries_.empty() && entries_.back() == text)) return;
    entries_.push_back(text);
    if (file_.empty()) return;
    std::error_code unknown;                           // the open() below says what is wrong
    fs::create_directories(fs::path(file_).parent_path(), unknown);
    const int fd = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const std::string line = escaped(text);
    // one write, so that lines of several programs do not mix
    if (fd < 0 || ::write(fd, line.data(), unsigned(line.size())) != ssize_t(line.size()))
        error_ = std::strerror(errno);
    if (fd >= 0) ::close(fd);
}

}  // namespace program
