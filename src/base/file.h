// file.h - files: read-only maps, whole reads with a limit, and writes that survive a crash.
#pragma once
#include "src/base/error.h"

namespace qlora::inline v0_1 {

// A file mapped read-only; pages are loaded on demand and shared between processes. Regular files only
// (a FIFO, a device or a folder is an error). Shared handle: tensors that point into the map keep it alive.
class MappedFile {
public:
    static std::shared_ptr<const MappedFile> open(const std::string& path);
    const uint8_t* data() const { return data_; }
    int64_t size() const { return size_; }
    const std::string& path() const { return path_; }
    void forget(const void* first, int64_t bytes) const;   // whole pages in there no longer count as memory in use; reading them again is allowed
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
private:
    MappedFile() = default;
    std::string path_;
    const uint8_t* data_ = nullptr;
    int64_t size_ = 0;
};

std::string read_file(const std::string& path, int64_t limit = int64_t(1) << 30);   // Error{io} when missing or larger
bool exists(const std::string& path);
bool is_folder(const std::string& path);

// Writes beside the target, syncs, renames over it, syncs the folder: afterwards the old or the new content is there, never a part.
void write_file_atomic(const std::string& path, std::string_view bytes);

// Streams a large file the same way: write() as often as needed, then commit(). Destroyed without commit, it leaves nothing.
class AtomicFile {
public:
    explicit AtomicFile(const std::string& path);
    void write(const void* bytes, int64_t count);
    int64_t written() const { return written_ + int64_t(buffer_.size()); }   // bytes so far, whether flushed or not
    void commit();
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
private:
    std::string path_, temporary_;
    int fd_ = -1;
    int64_t written_ = 0;
    std::string buffer_;
    void flush();
};

// A folder that appears whole or not at all: fill path(), then commit() syncs every file in it and renames it to the target
// (which must not exist, or is replaced when `replace`). Destroyed without commit, it removes what it wrote.
class AtomicFolder {
public:
    explicit AtomicFolder(const std::string& target, bool replace = false);
    const std::string& path() const { return temporary_; }
    void commit();
    ~AtomicFolder();
    AtomicFolder(const AtomicFolder&) = delete;
    AtomicFolder& operator=(const AtomicFolder&) = delete;
private:
    std::string target_, temporary_;
    bool replace_, done_ = false;
};

// FNV-1a style fingerprint of contents, not cryptographic. In pieces: all but the last a multiple of 8 bytes.
class Hash {
public:
    explicit Hash(uint64_t seed = 0);
    void add(const void* bytes, int64_t count);
    uint64_t value() const;
private:
    uint64_t h_, rest_ = 0;
    int64_t tail_ = 0;                                 // bytes in rest_
};
uint64_t hash_bytes(const void* bytes, int64_t count, uint64_t seed = 0);

}  // namespace qlora
