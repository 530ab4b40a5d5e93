// file.h - files: read-only maps, and writes that survive a crash. Whole reads and writes, and lists of folders, are
// public (qlora.h).
#pragma once
#include "src/base/mapped_file.h"

namespace qlora { inline namespace QLORA_ABI {

bool exists(const std::string& path);
bool is_folder(const std::string& path);

// Streams a large file as write_file_atomic() writes a small one: write() as often as needed, then commit(). Destroyed
// without commit, it leaves nothing.
class AtomicFile {
public:
    explicit AtomicFile(const std::string& path);
    static AtomicFile in_memory(std::string& bytes);   // appends to them; nothing is atomic
    void write(const void* bytes, int64_t count);
    int64_t written() const { return written_ + int64_t(buffer_.size()); }   // bytes so far, whether flushed or not
    void commit();
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
private:
    explicit AtomicFile(std::string* memory) : memory_(memory) {}
    std::string path_, temporary_;
    std::string* memory_ = nullptr;
    int fd_ = -1;
    int64_t written_ = 0;
    std::string buffer_;
    void flush();
};

// A folder that appears whole or not at all: fill path(), then commit() syncs every file in it and renames it to the
// target (which must not exist, or is replaced when `replace`). Destroyed without commit, it removes what it wrote.
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

}}  // namespace qlora
