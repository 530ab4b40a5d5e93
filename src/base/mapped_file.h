// mapped_file.h - files mapped read-only, and what happens when somebody cuts or overwrites one while it is in use.
//
// Reading a page behind the new end of a file that was cut raises SIGBUS, in whichever thread reads.
// guard_mapped_files() (qlora.h) installs a handler: it looks the address up in a table of all maps, puts pages of
// zeros in the place of that whole map, marks the map as broken and lets the thread go on. What was computed from then
// on is wrong, so nobody may believe it before check() has been asked: graphs ask after every run, savers before they
// commit, loaders at their end. check() also compares the size and the time of the last change with those at open(): a
// file that was overwritten in place never faults. Windows refuses to cut a file that is mapped: nothing is installed
// there.
//
// Bytes that are in memory already (Source::memory) are read through the same handle: nothing is mapped, and check()
// has nothing to find.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

// Pages are loaded on demand and shared between processes. Regular files only (a FIFO, a device or a folder is an
// error). Shared handle: tensors that point into the map keep it alive.
class MappedFile {
public:
    static std::shared_ptr<const MappedFile> open(const std::string& path);
    // name: for messages; owner keeps the bytes
    static std::shared_ptr<const MappedFile> memory(std::span<const std::byte>, std::string name,
                                                    std::shared_ptr<const void> owner);
    const uint8_t* data() const { return data_; }
    int64_t size() const { return size_; }
    const std::string& path() const { return path_; }
    void check() const;                                // Error{io} if the file was cut or written to since open()
    // The pages that hold them no longer count as memory in use, the first and the last one too: a small tensor fills
    // none, and Linux maps 2 MiB for it in large pages. Reading them again is allowed, as is what else lies there.
    void forget(const void* first, int64_t bytes) const;
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
private:
    MappedFile() = default;
    std::string path_;
    const uint8_t* data_ = nullptr;
    void* pages_ = nullptr;                            // the map; null: there is none
    std::shared_ptr<const void> owner_;
    int64_t size_ = 0, changed_ = 0;                   // changed_: when it was last written to, in nanoseconds
    int fd_ = -1;    // the file itself: a name may be given to another one meanwhile, which is allowed
    struct Watch* watch_ = nullptr;                    // its line in the table of the handler
};

}}  // namespace qlora
