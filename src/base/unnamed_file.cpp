// unnamed_file.cpp - see unnamed_file.h.
#include "src/base/unnamed_file.h"

#include "src/base/descriptor.h"
#include "src/base/file.h"
#include "src/base/system.h"

#include <cerrno>
#include <cstdlib>

namespace qlora { inline namespace QLORA_ABI {
namespace unnamed_file_room {

std::string temporary_folder() {
    const char* const named = std::getenv(sys::temporary_folder_variable);
    return named && *named ? named : "/tmp";
}

// A file with holes would end the process when the disk is full, at a write that nobody can refuse.
void make_room(int fd, int64_t bytes, const std::string& folder, const std::string& what, const std::string& remedy) {
    const int code = sys::make_room(fd, bytes);
    if (code != 0) fail(Errc::io, what, ": ", bytes, " bytes in ", folder, ": ", reason(code), "; ", remedy);
}

void advise(void* at, int64_t bytes, void (*wish)(void*, size_t)) {
    static const uintptr_t page = uintptr_t(sys::page_bytes());
    // pages that others share stay
    const uintptr_t from = (reinterpret_cast<uintptr_t>(at) + page - 1) / page * page,
                    to = (reinterpret_cast<uintptr_t>(at) + uintptr_t(bytes)) / page * page;
    if (from < to) wish(reinterpret_cast<void*>(from), to - from);
}

}  // namespace unnamed_file_room

std::shared_ptr<void> map_unnamed_file(const std::string& folder_or_none, int64_t bytes, const std::string& what,
                                       const std::string& remedy) {
    namespace room = unnamed_file_room;
    const std::string folder = !folder_or_none.empty() ? folder_or_none : room::temporary_folder();
    const std::string name = temporary_name(folder + "/paged");
    const auto file = std::make_shared<Descriptor>(sys::open_nameless(name));
    if (file->fd < 0) fail(Errc::io, what, ": create ", name, ": ", reason(errno), "; ", remedy);
    room::make_room(file->fd, bytes, folder, what, remedy);
#if defined(_WIN32)                                    // the file is there for as long as it is open
    void* const view = sys::map(file->fd, bytes, true);
    if (!view) fail(Errc::memory, what, ": map ", bytes, " bytes: ", reason(errno));
    return {view, [bytes, file](void* p) { sys::unmap(p, bytes); }};
#else
    // Where a file_page begins: the system maps so much around what is touched, and that shall be nobody else's.
    const size_t size = size_t(bytes), all = size + size_t(file_page);
    void* const reserved = ::mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) fail(Errc::memory, what, ": map ", bytes, " bytes: ", reason(errno));
    std::shared_ptr<void> owner(reserved, [all](void* p) { ::munmap(p, all); });
    const uintptr_t from = (reinterpret_cast<uintptr_t>(reserved) + file_page - 1) / file_page * file_page;
    void* const at = ::mmap(reinterpret_cast<void*>(from), size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                            file->fd, 0);
    if (at == MAP_FAILED) fail(Errc::memory, what, ": map ", bytes, " bytes: ", reason(errno));
    return {std::move(owner), at};
#endif
}

void let_go(void* at, int64_t bytes) { unnamed_file_room::advise(at, bytes, sys::forget); }
void call_back(void* at, int64_t bytes) { unnamed_file_room::advise(at, bytes, sys::will_need); }

}}  // namespace qlora
