// file.cpp - POSIX files: descriptors close on exec, only regular files are read, and new content appears whole or not at all.
#include "src/base/file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace qlora::inline v0_1 {
namespace file_room {

constexpr size_t buffer_bytes = size_t(1) << 20;       // a write() of 1 MiB costs less than copying it

std::string reason(int code) { return std::generic_category().message(code); }

// A descriptor that closes itself.
struct Descriptor {
    int fd = -1;
    Descriptor(const std::string& path, int flags, mode_t mode = 0) {
        do fd = ::open(path.c_str(), flags | O_CLOEXEC, mode); while (fd < 0 && errno == EINTR);
    }
    ~Descriptor() { if (fd >= 0) ::close(fd); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
};

// O_NONBLOCK: opening a FIFO must fail at the check below, not wait for its writer.
int64_t open_regular(const std::string& path, Descriptor& file) {
    struct stat status {};
    if (file.fd < 0) fail(Errc::io, "open ", path, ": ", reason(errno));
    if (::fstat(file.fd, &status) != 0) fail(Errc::io, "open ", path, ": ", reason(errno));
    if (S_ISDIR(status.st_mode)) fail(Errc::io, "open ", path, ": is a folder, a file is needed");
    if (!S_ISREG(status.st_mode)) fail(Errc::io, "open ", path, ": is not a regular file");
    return int64_t(status.st_size);
}

std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

std::string folder_of(const std::string& path) {
    const size_t slash = path.rfind('/');
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
        fail(Errc::io, "write ", path, ": the disk is full after ", done, " bytes", code == EDQUOT ? " (quota)" : "", left,
             "; nothing was left behind, free some space or write elsewhere");
    }
    if (code == EFBIG) fail(Errc::io, "write ", path, ": larger than this file system or process may write, after ", done, " bytes; nothing was left behind");
    fail(Errc::io, "write ", path, ": ", reason(code), " after ", done, " bytes; nothing was left behind");
}

// 0 or the error. fsync reports delayed write errors, a full disk of a network file system among them.
int sync_path(const std::string& path, bool folder) {
    const Descriptor file(path, folder ? O_RDONLY | O_DIRECTORY : O_RDONLY);
    if (file.fd < 0) return errno;
    if (::fsync(file.fd) == 0 || (folder && errno == EINVAL)) return 0;       // some file systems cannot sync a folder
    return errno;
}

void sync_tree(const std::string& folder) {
    std::vector<std::string> folders{folder};
    std::error_code code;
    for (std::filesystem::recursive_directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
        if (it->is_symlink()) continue;
        if (it->is_directory()) folders.push_back(it->path().string());
        else if (const int problem = sync_path(it->path().string(), false)) write_failed(it->path().string(), problem, int64_t(it->file_size()));
    }
    if (code) fail(Errc::io, "write ", folder, ": ", code.message());
    for (const std::string& f : folders) if (const int problem = sync_path(f, true)) write_failed(f, problem, 0);
}

// Puts `fresh` in the place of `target` in one step where the kernel can swap two names; elsewhere a crash between the two renames
// leaves the old folder under its ".old" name. Returns the name under which the old content is now.
std::string swap_folders(const std::string& fresh, const std::string& target) {
#if defined(__linux__) && defined(RENAME_EXCHANGE)
    if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return fresh;
#endif
    const std::string old = temporary_name(target) + ".old";
    if (::rename(target.c_str(), old.c_str()) != 0) fail(Errc::io, "replace ", target, ": ", reason(errno));
    if (::rename(fresh.c_str(), target.c_str()) != 0) {
        const int code = errno;
        ::rename(old.c_str(), target.c_str());
        fail(Errc::io, "replace ", target, ": ", reason(code));
    }
    return old;
}

}  // namespace file_room

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
    file_room::Descriptor file(path, O_RDONLY | O_NONBLOCK);
    std::shared_ptr<MappedFile> map(new MappedFile);
    map->path_ = path;
    map->size_ = file_room::open_regular(path, file);
    if (map->size_ == 0) return map;                   // mmap refuses a length of 0
    void* const at = ::mmap(nullptr, size_t(map->size_), PROT_READ, MAP_SHARED, file.fd, 0);
    if (at == MAP_FAILED) fail(Errc::memory, "map ", path, " (", map->size_, " bytes): ", file_room::reason(errno));
    map->data_ = static_cast<const uint8_t*>(at);
    return map;
}

void MappedFile::forget(const void* first, int64_t bytes) const {
    const int64_t page = ::sysconf(_SC_PAGESIZE), at = static_cast<const uint8_t*>(first) - data_;
    if (!data_ || page <= 0 || at < 0 || bytes < 0 || at > size_ - bytes) return;
    const int64_t begin = (at + page - 1) / page * page, end = (at + bytes) / page * page;
    if (begin < end) ::madvise(const_cast<uint8_t*>(data_) + begin, size_t(end - begin), MADV_DONTNEED);
}

MappedFile::~MappedFile() {
    if (data_) ::munmap(const_cast<uint8_t*>(data_), size_t(size_));
}

std::string read_file(const std::string& path, int64_t limit) {
    file_room::Descriptor file(path, O_RDONLY | O_NONBLOCK);
    const int64_t size = file_room::open_regular(path, file);
    if (size > limit) fail(Errc::io, "read ", path, ": ", size, " bytes, the limit is ", limit);
    std::string bytes(size_t(size), '\0');
    for (int64_t at = 0; at < size;) {
        const ssize_t got = ::read(file.fd, bytes.data() + at, size_t(size - at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(Errc::io, "read ", path, ": ", file_room::reason(errno));
        if (got == 0) fail(Errc::io, "read ", path, ": ends after ", at, " of ", size, " bytes: it was cut while being read");
        at += got;
    }
    return bytes;
}

bool exists(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0;
}

bool is_folder(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void write_file_atomic(const std::string& path, std::string_view bytes) {
    AtomicFile file(path);
    file.write(bytes.data(), int64_t(bytes.size()));
    file.commit();
}

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
    if (path.empty()) fail(Errc::argument, "write: the path is empty");
    if (is_folder(path)) fail(Errc::io, "write ", path, ": is a folder");
    do {                                               // EEXIST: left by a crashed process that had our id
        temporary_ = file_room::temporary_name(path);
        fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd_ < 0 && (errno == EEXIST || errno == EINTR));
    if (fd_ < 0) fail(Errc::io, "write ", path, ": ", file_room::reason(errno));
}

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* bytes, int64_t count) {
    if (fd_ < 0) fail(Errc::argument, "write ", path_, ": already committed");
    const char* from = static_cast<const char*>(bytes);
    while (count > 0) {
        const int64_t take = std::min(count, int64_t(file_room::buffer_bytes - buffer_.size()));
        buffer_.append(from, size_t(take));
        from += take;
        count -= take;
        if (buffer_.size() == file_room::buffer_bytes) flush();
    }
}

void AtomicFile::flush() {
    for (size_t at = 0; at < buffer_.size();) {
        const ssize_t put = ::write(fd_, buffer_.data() + at, buffer_.size() - at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) file_room::write_failed(path_, errno, written_);
        at += size_t(put);
        written_ += put;
    }
    buffer_.clear();
}

void AtomicFile::commit() {
    if (fd_ < 0) fail(Errc::argument, "write ", path_, ": already committed");
    flush();
    if (::fsync(fd_) != 0) file_room::write_failed(path_, errno, written_);
    if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) file_room::write_failed(path_, errno, written_);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) file_room::write_failed(path_, errno, written_);
    temporary_.clear();
    if (const int code = file_room::sync_path(file_room::folder_of(path_), true))
        fail(Errc::io, "write ", path_, ": written, but its folder could not be synced: ", file_room::reason(code));
}

AtomicFolder::AtomicFolder(const std::string& target, bool replace) : target_(file_room::without_slashes(target)), replace_(replace) {
    if (target_.empty()) fail(Errc::argument, "write: the path of the folder is empty");
    if (exists(target_) && !replace) fail(Errc::io, "write ", target_, ": exists already; choose another name or remove it");
    if (exists(target_) && !is_folder(target_)) fail(Errc::io, "write ", target_, ": exists and is not a folder");
    do temporary_ = file_room::temporary_name(target_); while (::mkdir(temporary_.c_str(), 0777) != 0 && errno == EEXIST);
    if (!is_folder(temporary_)) fail(Errc::io, "write ", target_, ": cannot create a folder beside it: ", file_room::reason(errno));
}

AtomicFolder::~AtomicFolder() {
    std::error_code ignored;
    if (!done_) std::filesystem::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
    if (done_) fail(Errc::argument, "write ", target_, ": already committed");
    file_room::sync_tree(temporary_);
    std::string old;
    if (exists(target_)) {
        if (!replace_) fail(Errc::io, "write ", target_, ": somebody created it meanwhile; choose another name or remove it");
        old = file_room::swap_folders(temporary_, target_);
    } else if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
        fail(Errc::io, "write ", target_, ": ", file_room::reason(errno));
    }
    done_ = true;
    if (const int code = file_room::sync_path(file_room::folder_of(target_), true))
        fail(Errc::io, "write ", target_, ": written, but its folder could not be synced: ", file_room::reason(code));
    std::error_code ignored;
    if (!old.empty()) std::filesystem::remove_all(old, ignored);
}

namespace file_room {

// FNV-1a over words of 8 bytes instead of bytes, with the high half folded in after each: every bit of the input moves every bit.
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
    const uint64_t h = file_room::mixed(h_, rest_ ^ uint64_t(tail_) << 56);    // the length of the tail keeps trailing zero bytes apart
    return file_room::mixed(h, h >> 29);
}

uint64_t hash_bytes(const void* bytes, int64_t count, uint64_t seed) {
    Hash hash(seed);
    hash.add(bytes, count);
    return hash.value();
}

}  // namespace qlora
