// file.cpp - files: descriptors close on exec, only regular files are read, and new content appears whole or not
// at all.
#include "src/base/file.h"

#include "src/base/descriptor.h"
#include "src/base/large_pages.h"
#include "src/base/stop.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

namespace qlora { inline namespace QLORA_ABI {
namespace file_room {

// Written so, from a multiple of it on, a file lies in the memory of Linux in large pages: a model that was just made
// is read as fast as one that was read from a disk. A write() of it costs less than copying it.
constexpr size_t buffer_bytes = large_page;

}  // namespace file_room

std::string folder_of(const std::string& path) {
    const size_t slash = path.find_last_of(sys::separators);
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// A name beside the target that no other process or thread of this one uses.
std::string temporary_name(const std::string& target) {
    static std::atomic<unsigned> counter{0};
    return str(target, ".part-", ::getpid(), '-', counter.fetch_add(1));
}

// What to tell about a failed write: a full disk is by far the most frequent cause and has its own remedy.
[[noreturn]] void write_failed(const std::string& path, int code, int64_t done) {
    if (code == ENOSPC || code == EDQUOT) {
        std::error_code ignored;
        const auto space = std::filesystem::space(folder_of(path), ignored);
        const std::string left = ignored ? "" : str(", ", space.available, " bytes are free");
        fail(Errc::io, "write ", path, ": the disk is full after ", done, " bytes", code == EDQUOT ? " (quota)" : "",
             left, "; nothing was left behind, free some space or write elsewhere");
    }
    if (code == EFBIG)
        fail(Errc::io, "write ", path, ": larger than this file system or process may write, after ", done,
             " bytes; nothing was left behind");
    fail(Errc::io, "write ", path, ": ", reason(code), " after ", done, " bytes; nothing was left behind");
}

// 0 or the error. fsync reports delayed write errors, a full disk of a network file system among them.
int sync_path(const std::string& path, bool folder) {
#if defined(_WIN32)
    if (folder) return 0;                              // renaming there waits for the disk itself
#endif
    const Descriptor file(path, folder ? O_RDONLY | O_DIRECTORY : sys::open_to_sync);
    if (file.fd < 0) return errno;
    int code = 0;
    do code = sys::fsync(file.fd) == 0 ? 0 : errno; while (code == EINTR);
    return folder && code == EINVAL ? 0 : code;        // some file systems cannot sync a folder
}

std::string read_file(const std::string& path, int64_t limit) {
    Descriptor file(path, O_RDONLY | O_NONBLOCK);
    const int64_t size = int64_t(status_of_regular(path, file).st_size);
    if (size > limit) fail(Errc::io, "read ", path, ": ", size, " bytes, the limit is ", limit);
    std::string bytes(size_t(size), '\0');
    for (int64_t at = 0; at < size;) {
        check_stop();
        constexpr int64_t most = 64 << 20;             // at once: a read of a file is not interrupted
        const ssize_t got = sys::read(file.fd, bytes.data() + at, size_t(std::min(size - at, most)));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(Errc::io, "read ", path, ": ", reason(errno));
        if (got == 0)
            fail(Errc::io, "read ", path, ": ends after ", at, " of ", size, " bytes: it was cut while being read");
        at += got;
    }
    return bytes;
}

bool exists(const std::string& path) {
    sys::Status status{};
    return sys::stat(path.c_str(), &status) == 0;
}

bool is_folder(const std::string& path) {
    sys::Status status{};
    return sys::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void write_file_atomic(const std::string& path, std::string_view bytes) {
    AtomicFile file(path);
    file.write(bytes.data(), int64_t(bytes.size()));
    file.commit();
}

// A device, a pipe, or a name of what this process has open (/dev/stdout): it must be written to, not replaced.
bool is_stream(const std::string& path) {
    sys::Status status{};
    const std::string folder = folder_of(path);
    return (sys::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) || folder == "/dev" ||
           folder == "/dev/fd" || folder.starts_with("/proc/");
}

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
    if (path.empty()) fail(Errc::argument, "write: the path is empty");
    if (is_folder(path)) fail(Errc::io, "write ", path, ": is a folder");
    if (is_stream(path)) {
        do fd_ = sys::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC); while (fd_ < 0 && errno == EINTR);
        if (fd_ < 0) fail(Errc::io, "write ", path, ": ", reason(errno));
        return;
    }
    do {                                               // EEXIST: left by a crashed process that had our id
        temporary_ = temporary_name(path);
        fd_ = sys::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd_ < 0 && (errno == EEXIST || errno == EINTR));
    if (fd_ < 0) fail(Errc::io, "write ", path, ": ", reason(errno));
}

AtomicFile AtomicFile::in_memory(std::string& bytes) { return AtomicFile(&bytes); }

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) sys::close(fd_);
    if (!temporary_.empty()) sys::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* bytes, int64_t count) {
    const char* from = static_cast<const char*>(bytes);
    if (memory_) {
        memory_->append(from, size_t(count));
        written_ += count;
        return;
    }
    if (fd_ < 0) fail(Errc::argument, "write ", path_, ": already committed");
    while (count > 0) {
        const int64_t take = std::min(count, int64_t(file_room::buffer_bytes - buffer_.size()));
        buffer_.append(from, size_t(take));
        from += take;
        count -= take;
        if (buffer_.size() < file_room::buffer_bytes) continue;
        check_stop();
        flush();
    }
}

void AtomicFile::flush() {
    for (size_t at = 0; at < buffer_.size();) {
        const ssize_t put = sys::write(fd_, buffer_.data() + at, buffer_.size() - at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) write_failed(path_, errno, written_);
        at += size_t(put);
        written_ += put;
    }
    buffer_.clear();
}

void AtomicFile::commit() {
    if (memory_) return;
    if (fd_ < 0) fail(Errc::argument, "write ", path_, ": already committed");
    flush();
    if (temporary_.empty()) {                          // a stream
        if (sys::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) write_failed(path_, errno, written_);
        return;
    }
    int synced = 0;
    do synced = sys::fsync(fd_); while (synced != 0 && errno == EINTR);
    if (synced != 0) write_failed(path_, errno, written_);
    if (sys::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) write_failed(path_, errno, written_);
    if (sys::rename(temporary_.c_str(), path_.c_str()) != 0) write_failed(path_, errno, written_);
    temporary_.clear();
    if (const int code = sync_path(folder_of(path_), true))
        fail(Errc::io, "write ", path_, ": written, but its folder could not be synced: ", reason(code));
}

namespace file_room {

// FNV-1a over words of 8 bytes instead of bytes, with the high half folded in after each: every bit of the input moves
// every bit.
constexpr uint64_t hash_prime = 0x100000001b3, hash_basis = 0xcbf29ce484222325;
uint64_t mixed(uint64_t h, uint64_t word) { h = (h ^ word) * hash_prime; return h ^ h >> 32; }

}  // namespace file_room

Hash::Hash(uint64_t seed) : h_((file_room::hash_basis ^ seed) * file_room::hash_prime) {}

void Hash::add(const void* bytes, int64_t count) {
    const char* p = static_cast<const char*>(bytes);
    if (tail_) fail(Errc::argument, "hash: only the last piece may end within a word");
    for (; count >= 8; count -= 8, p += 8) {
        uint64_t word;
        std::memcpy(&word, p, 8);
        h_ = file_room::mixed(h_, word);
    }
    if (count > 0) std::memcpy(&rest_, p, size_t(count));
    tail_ = count;
}

uint64_t Hash::value() const {
    // the length of the tail keeps trailing zero bytes apart
    const uint64_t h = file_room::mixed(h_, rest_ ^ uint64_t(tail_) << 56);
    return file_room::mixed(h, h >> 29);
}

uint64_t hash_bytes(const void* bytes, int64_t count, uint64_t seed) {
    Hash hash(seed);
    hash.add(bytes, count);
    return hash.value();
}

}}  // namespace qlora
