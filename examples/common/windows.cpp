// windows.cpp - what the programs ask of Windows: its console, in UTF-8 and with the colours of terminals, the memory
// of the process, and files that one process holds.
#if defined(_WIN32)
#include "examples/common/keys.h"
#include "examples/common/lock_file.h"
#include "examples/common/streams.h"
#include "examples/common/terminal.h"

#define WIN32_LEAN_AND_MEAN
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#include <psapi.h>
#include <shellapi.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <fcntl.h>
#include <io.h>

namespace program {

static HANDLE handle_of(int fd) {
    return ::GetStdHandle(fd == 0 ? STD_INPUT_HANDLE : fd == 1 ? STD_OUTPUT_HANDLE : STD_ERROR_HANDLE);
}

bool is_terminal(int fd) {
    DWORD mode = 0;
    return ::GetConsoleMode(handle_of(fd), &mode) != 0;
}

int columns(int fd) {
    CONSOLE_SCREEN_BUFFER_INFO info;
    return ::GetConsoleScreenBufferInfo(handle_of(fd), &info) ? info.srWindow.Right - info.srWindow.Left + 1 : 80;
}

int read_key(std::string&) { return -1; }              // there is no raw mode

int64_t peak_memory() {
    PROCESS_MEMORY_COUNTERS counters{};
    const bool known = ::K32GetProcessMemoryInfo(::GetCurrentProcess(), &counters, sizeof counters);
    return known ? int64_t(counters.PeakWorkingSetSize) : 0;
}

// The runtime opens them itself. Lines end as the program writes them, and the console is left as it was found.
void hold_standard_streams() {
    for (const int fd : {0, 1, 2}) (void)::_setmode(fd, O_BINARY);
    static const UINT before = ::GetConsoleOutputCP();
    if (before != 0 && ::SetConsoleOutputCP(CP_UTF8)) std::atexit([] { ::SetConsoleOutputCP(before); });
    for (const int fd : {1, 2})
        if (DWORD mode = 0; ::GetConsoleMode(handle_of(fd), &mode))
            ::SetConsoleMode(handle_of(fd), mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
}

static std::string narrow(const wchar_t* wide, UINT page) {
    std::string text(size_t(std::max(1, ::WideCharToMultiByte(page, 0, wide, -1, nullptr, 0, nullptr, nullptr))), 0);
    ::WideCharToMultiByte(page, 0, wide, -1, text.data(), int(text.size()), nullptr, nullptr);
    text.pop_back();                                   // the zero
    return text;
}

// Those of the command line, where they are what main() got in the system's own characters; others stay as they are.
std::vector<std::string> arguments(int argc, char** argv) {
    std::vector<std::string> words(argv, argv + argc);
    int count = 0;
    wchar_t** const wide = ::CommandLineToArgvW(::GetCommandLineW(), &count);
    for (int i = 0; wide && count == argc && i < argc; ++i)
        if (narrow(wide[i], CP_ACP) == words[size_t(i)]) words[size_t(i)] = narrow(wide[i], CP_UTF8);
    ::LocalFree(wide);
    return words;
}

bool is_piped(int fd) {
    const DWORD type = ::GetFileType(handle_of(fd));
    return type == FILE_TYPE_PIPE || type == FILE_TYPE_DISK;
}

// A line of the console as UTF-8. Ctrl-Z at its start is the end.
static int64_t read_console(HANDLE console, char* to, size_t bytes) {
    wchar_t line[4096];
    DWORD count = 0;
    if (!::ReadConsoleW(console, line, DWORD(std::min<size_t>(bytes / 3, std::size(line))), &count, nullptr)) {
        errno = EIO;
        return -1;
    }
    if (count == 0) {                                  // Ctrl-C: whom it interrupts hears of it in another thread
        ::Sleep(50);
        errno = EINTR;
        return -1;
    }
    if (line[0] == 26) return 0;
    return ::WideCharToMultiByte(CP_UTF8, 0, line, int(count), to, int(bytes), nullptr, nullptr);
}

int64_t read_input(char* to, size_t bytes) {
    const HANDLE input = handle_of(0);
    if (is_terminal(0)) return read_console(input, to, bytes);
    DWORD got = 0;
    if (::ReadFile(input, to, DWORD(std::min(bytes, size_t(1) << 30)), &got, nullptr)) return got;
    const DWORD error = ::GetLastError();
    if (error == ERROR_BROKEN_PIPE || error == ERROR_HANDLE_EOF) return 0;
    errno = error == ERROR_INVALID_HANDLE ? EBADF : EIO;
    return -1;
}

bool input_waits() {
    if (::GetFileType(handle_of(0)) != FILE_TYPE_PIPE) return !is_terminal(0);
    DWORD waiting = 0;
    for (int tenth = 0; tenth < 20; ++tenth, ::Sleep(100))
        if (!::PeekNamedPipe(handle_of(0), nullptr, 0, nullptr, &waiting, nullptr) || waiting > 0) return true;
    return false;
}

namespace fs = std::filesystem;

// Nobody else may open it, and it goes with its only handle.
int lock_file(const std::string& path) {
    const HANDLE handle = ::CreateFileW(fs::path(path).c_str(), GENERIC_READ | GENERIC_WRITE, 0, nullptr, OPEN_ALWAYS,
                                        FILE_FLAG_DELETE_ON_CLOSE, nullptr);
    if (handle != INVALID_HANDLE_VALUE) return ::_open_osfhandle(reinterpret_cast<intptr_t>(handle), O_NOINHERIT);
    errno = ::GetLastError() == ERROR_SHARING_VIOLATION ? EWOULDBLOCK : EACCES;
    return -1;
}

void unlock_file(int fd, const std::string&) { ::_close(fd); }
void remove_if_empty(const std::string& folder) { ::RemoveDirectoryW(fs::path(folder).c_str()); }
FILE* appending(const std::string& path) { return ::_wfopen(fs::path(path).c_str(), L"ab"); }

}  // namespace program
#endif
