// mapped_file.cpp - read-only maps, and the handler for those whose file is cut.
#include "src/base/mapped_file.h"

#include "src/base/descriptor.h"
#include "src/base/large_pages.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <mutex>

namespace qlora { inline namespace QLORA_ABI {

// A line of the handler's table. Lines are never freed, only used again, so that the handler can walk them at any
// moment.
struct Watch {
    std::atomic<uintptr_t> begin{0};                   // 0 = free
    std::atomic<size_t> bytes{0};
    std::atomic<int> broken{0};                        // not a bool: RISC-V has no atomic bytes
    Watch* next = nullptr;
};

namespace mapped_file_room {

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "a signal handler may not wait for a lock");

std::atomic<Watch*> table{nullptr};
std::mutex table_mutex;                                // of those who add and remove lines; the handler takes no lock

Watch* watch(const void* begin, size_t bytes) {
    const std::lock_guard lock(table_mutex);
    Watch* w = table.load();
    while (w && w->begin.load() != 0) w = w->next;
    if (!w) {
        w = new Watch;
        w->next = table.load();
        table.store(w);
    }
    w->bytes.store(bytes);
    w->broken.store(0);
    w->begin.store(reinterpret_cast<uintptr_t>(begin));    // last: from here on the handler sees the line
    return w;
}

#if !defined(_WIN32)

struct sigaction before {};                            // what SIGBUS did before guard_mapped_files()

// The whole map and not only the page: one fault instead of thousands, and no value that is half the old file. Zeros
// that are only read take no memory.
bool replace_by_zeros(const void* address) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    for (Watch* w = table.load(); w; w = w->next) {
        const uintptr_t begin = w->begin.load();
        if (begin == 0 || at < begin || at - begin >= w->bytes.load()) continue;
        w->broken.store(1);
        return ::mmap(reinterpret_cast<void*>(begin), w->bytes.load(), PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    }
    return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
    const int kept = errno;
    const bool fault = info->si_code > 0;              // else somebody sent the signal
    if (fault && replace_by_zeros(info->si_addr)) {
        errno = kept;
        return;
    }
    if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
    if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
    if (!fault && before.sa_handler == SIG_IGN) return;
    ::signal(signal, SIG_DFL);    // a fault comes again at once and ends the process, as it would have without us
    if (!fault) ::raise(signal);
    errno = kept;
}

#endif

}  // namespace mapped_file_room

#if !defined(_WIN32)

void guard_mapped_files() {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    struct sigaction now {};
    if (::sigaction(SIGBUS, nullptr, &now) != 0) fail(Errc::device, "guard_mapped_files: ", reason(errno));
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == mapped_file_room::on_bus_error) return;
    mapped_file_room::before = now;                    // before the handler is there: it may be called at once
    struct sigaction action {};
    action.sa_sigaction = mapped_file_room::on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (::sigaction(SIGBUS, &action, nullptr) != 0) fail(Errc::device, "guard_mapped_files: ", reason(errno));
}

#else
void guard_mapped_files() {}    // there is no need: Windows refuses to cut a file that is mapped
#endif

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
    Descriptor file(path, O_RDONLY | O_NONBLOCK);
    const sys::Status status = status_of_regular(path, file);
    std::shared_ptr<MappedFile> map(new MappedFile);
    map->path_ = path;
    map->size_ = int64_t(status.st_size);
    map->changed_ = sys::last_change(status);
    map->fd_ = file.release();
    if (map->size_ == 0) return map;                   // mmap refuses a length of 0
    void* const at = sys::map(map->fd_, map->size_, false);
    if (!at) fail(Errc::memory, "map ", path, " (", map->size_, " bytes): ", reason(errno));
    wish_large_pages(at, size_t(map->size_));          // where the file is still to be read
    map->pages_ = at;
    map->data_ = static_cast<const uint8_t*>(at);
    map->watch_ = mapped_file_room::watch(at, size_t(map->size_));
    return map;
}

std::shared_ptr<const MappedFile> MappedFile::memory(std::span<const std::byte> bytes, std::string name,
                                                     std::shared_ptr<const void> owner) {
    std::shared_ptr<MappedFile> file(new MappedFile);
    file->path_ = std::move(name);
    file->size_ = int64_t(bytes.size());
    file->data_ = reinterpret_cast<const uint8_t*>(bytes.data());
    file->owner_ = std::move(owner);
    // Formats align what they hold from the start of the file on; a map begins with a page.
    constexpr size_t unit = 64;
    if (const size_t off = reinterpret_cast<uintptr_t>(file->data_) % unit; off != 0) {
        const auto copy = std::make_shared<std::vector<uint8_t>>(bytes.size() + unit);
        uint8_t* const at = copy->data() + (unit - reinterpret_cast<uintptr_t>(copy->data()) % unit) % unit;
        std::copy_n(file->data_, bytes.size(), at);
        file->data_ = at;
        file->owner_ = copy;
    }
    return file;
}

MappedFile::~MappedFile() {
    if (watch_) watch_->begin.store(0);                // before the addresses can belong to somebody else
    if (pages_) sys::unmap(pages_, size_);
    if (fd_ >= 0) sys::close(fd_);
}

void MappedFile::check() const {
    if (fd_ < 0) return;
    sys::Status status{};
    const bool known = sys::fstat(fd_, &status) == 0;
    if (known && int64_t(status.st_size) < size_)
        fail(
            Errc::io, path_, ": was cut from ", size_, " to ", status.st_size,
            " bytes while it was in use; nothing computed from it since is kept. Put the file back, and load it again");
    if (watch_ && watch_->broken.load() != 0)
        fail(Errc::io, path_,
             ": a part of it could not be read while it was in use (the file was cut, or its disk failed); nothing "
             "computed from it since is kept. Load it again");
    if (known && (int64_t(status.st_size) != size_ || sys::last_change(status) != changed_))
        fail(Errc::io, path_,
             ": was written to while it was in use; nothing computed from it since is kept. Load it again, and replace "
             "files by renaming, not by copying over them");
}

void MappedFile::forget(const void* first, int64_t bytes) const {
    const int64_t page = sys::page_bytes(), at = static_cast<const uint8_t*>(first) - data_;
    if (!pages_ || page <= 0 || at < 0 || bytes < 0 || at > size_ - bytes) return;
    const int64_t begin = at / page * page, end = std::min((at + bytes + page - 1) / page * page, size_);
    if (bytes > 0) sys::forget(static_cast<char*>(pages_) + begin, size_t(end - begin));
}

}}  // namespace qlora
