// lock_file.cpp - locks of POSIX; for Windows see windows.cpp.
#include "examples/common/lock_file.h"

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace program {

int lock_file(const std::string& path) {
    // The file may be unlinked by the process that held it between our open() and flock(): then the name is another
    // file's, or nobody's.
    struct stat held {}, named {};
    int fd = -1;
    do {
        if (fd >= 0) ::close(fd);
        fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) return -1;
        if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
            ::close(fd);
            errno = EWOULDBLOCK;
            return -1;
        }
    } while (::fstat(fd, &held) != 0 || ::stat(path.c_str(), &named) != 0 || held.st_ino != named.st_ino ||
             held.st_dev != named.st_dev);
    return fd;
}

void unlock_file(int fd, const std::string& path) {
    ::unlink(path.c_str());                            // still locked, so nobody else can be in between
    ::close(fd);
}

void remove_if_empty(const std::string& folder) { ::rmdir(folder.c_str()); }    // fails where it is not

FILE* appending(const std::string& path) { return std::fopen(path.c_str(), "ab"); }

}  // namespace program
#endif
