// system.h - what the rooms about files and memory ask of the operating system, by the names of POSIX. Elsewhere than
// on Windows these are the system's own calls; there they are in windows.cpp: paths are UTF-8, bytes are never
// translated, and what is open here may be renamed and removed by others.
#pragma once
#include "qlora.h"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#if !defined(_WIN32)
#include <sys/mman.h>
#else
#define O_CLOEXEC O_NOINHERIT
#define O_NONBLOCK 0                                   // opening never waits for a writer
#define O_DIRECTORY 0
#define EDQUOT (-1)                                    // a quota that is used up is a full disk there
#endif

namespace qlora { inline namespace QLORA_ABI { namespace sys {

#if !defined(_WIN32)

static_assert(sizeof(off_t) >= 8, "on a 32-bit system compile with -D_FILE_OFFSET_BITS=64, for files above 2 GiB");

using Status = struct ::stat;
using ::stat, ::fstat, ::lstat;
using ::open, ::read, ::write, ::close, ::fsync;
using ::rename, ::unlink, ::mkdir;

constexpr const char* separators = "/";                // of paths
constexpr const char* temporary_folder_variable = "TMPDIR";
constexpr int open_to_sync = O_RDONLY;

inline int64_t last_change(const Status& s) {          // nanoseconds
#if defined(__APPLE__)
    return int64_t(s.st_mtimespec.tv_sec) * 1'000'000'000 + s.st_mtimespec.tv_nsec;
#else
    return int64_t(s.st_mtim.tv_sec) * 1'000'000'000 + s.st_mtim.tv_nsec;
#endif
}

// Of a file that is gone when it is closed, however the process ends; -1 with errno.
inline int open_nameless(const std::string& path) {
    int fd = -1;
    do fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600); while (fd < 0 && errno == EINTR);
    if (fd >= 0) ::unlink(path.c_str());
    return fd;
}

// The disk's space for so many bytes, not a file with holes; 0 or the error.
inline int make_room(int fd, int64_t bytes) {
#if defined(__APPLE__)
    return ::ftruncate(fd, off_t(bytes)) == 0 ? 0 : errno;
#else
    return ::posix_fallocate(fd, 0, off_t(bytes));
#endif
}

// Null with errno where there is none. What is written there is written to the file.
inline void* map(int fd, int64_t bytes, bool writable) {
    void* const at = ::mmap(nullptr, size_t(bytes), PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? nullptr : at;
}
inline void unmap(void* at, int64_t bytes) { ::munmap(at, size_t(bytes)); }

inline void* addresses(size_t bytes) {                 // of nothing: touching them ends the process
    void* const at = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? nullptr : at;
}
inline void give_back(void* at, size_t bytes) { ::munmap(at, bytes); }

inline int64_t page_bytes() { return ::sysconf(_SC_PAGESIZE); }
// Wishes about whole pages of a map.
inline void will_need(void* at, size_t bytes) { (void)::madvise(at, bytes, MADV_WILLNEED); }
inline void forget(void* at, size_t bytes) { (void)::madvise(at, bytes, MADV_DONTNEED); }

#else

struct Status {
    int64_t st_size, changed;
    unsigned st_mode;                                  // S_IFREG, S_IFDIR, or another kind
};
int stat(const char* path, Status*);
int fstat(int fd, Status*);
int lstat(const char* path, Status*);
int open(const char* path, int flags, int mode = 0);
int64_t read(int fd, void* to, size_t bytes);
int64_t write(int fd, const void* from, size_t bytes);
int close(int fd);
int fsync(int fd);
int rename(const char* from, const char* to);
int unlink(const char* path);
int mkdir(const char* path, int mode);

constexpr const char* separators = "/\\";
constexpr const char* temporary_folder_variable = "TEMP";
constexpr int open_to_sync = O_RDWR;                   // only what may be written can be synced

inline int64_t last_change(const Status& s) { return s.changed; }
int open_nameless(const std::string& path);
int make_room(int fd, int64_t bytes);
void* map(int fd, int64_t bytes, bool writable);
void unmap(void* at, int64_t bytes);
void* addresses(size_t bytes);
void give_back(void* at, size_t bytes);
int64_t page_bytes();
inline void will_need(void*, size_t) {}
void forget(void* at, size_t bytes);                   // out of the working set
int64_t free_memory();                                 // of the machine
int64_t private_memory();                              // of this process, but for files

#endif

}}}  // namespace qlora::sys
