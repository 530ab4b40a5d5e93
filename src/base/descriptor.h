// descriptor.h - what the rooms about files share: an open file that closes itself, how files are opened, synced and
// named, and what a failed write is told as.
#pragma once
#include "src/base/error.h"
#include "src/base/system.h"

#include <system_error>

namespace qlora { inline namespace QLORA_ABI {

inline std::string reason(int code) {
#if defined(_WIN32)
    if (code == EBUSY) return "in use: Windows replaces no file that a program has open or mapped; close it there";
#endif
    return std::generic_category().message(code);
}

struct Descriptor {
    int fd = -1;
    Descriptor(const std::string& path, int flags, mode_t mode = 0) {
        do fd = sys::open(path.c_str(), flags | O_CLOEXEC, mode); while (fd < 0 && errno == EINTR);
    }
    explicit Descriptor(int opened) : fd(opened) {}
    ~Descriptor() { if (fd >= 0) sys::close(fd); }
    int release() { const int kept = fd; fd = -1; return kept; }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
};

// Open with O_RDONLY | O_NONBLOCK: opening a FIFO must fail at the check here, not wait for its writer.
inline sys::Status status_of_regular(const std::string& path, const Descriptor& file) {
    sys::Status status{};
    if (file.fd < 0 || sys::fstat(file.fd, &status) != 0) fail(Errc::io, "open ", path, ": ", reason(errno));
    if (S_ISDIR(status.st_mode)) fail(Errc::io, "open ", path, ": is a folder, a file is needed");
    if (!S_ISREG(status.st_mode)) fail(Errc::io, "open ", path, ": is not a regular file");
    return status;
}

std::string folder_of(const std::string& path);
// beside the target, a name that no other process or thread of this one uses
std::string temporary_name(const std::string& target);
int sync_path(const std::string& path, bool folder);   // 0 or the error
[[noreturn]] void write_failed(const std::string& path, int code, int64_t done);

}}  // namespace qlora
