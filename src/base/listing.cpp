// listing.cpp - folders, listed and removed. On system calls and not on std::filesystem: the directory iterators of
// libstdc++ allocate inside functions that may not throw, and end the process where memory is short. For Windows see
// windows.cpp.
#if !defined(_WIN32)
#include "src/base/descriptor.h"
#include "src/base/file.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>

#include <dirent.h>

namespace qlora { inline namespace QLORA_ABI {
namespace listing_room {

using Listing = std::unique_ptr<DIR, int (*)(DIR*)>;

bool is_dot(const char* name) { return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0; }

int remove_at(int parent, const char* name) noexcept;

// Everything in an open folder. A pass that removed something is followed by another: file systems may skip names while
// others go.
int empty(DIR* listing) noexcept {
    constexpr int passes = 100;                        // somebody else who goes on writing there is not waited for
    for (int pass = 0; pass < passes; ++pass) {
        bool again = false;
        int first_error = 0;
        ::rewinddir(listing);
        for (const dirent* entry; (entry = ::readdir(listing)) != nullptr;) {
            if (is_dot(entry->d_name)) continue;
            const int problem = remove_at(::dirfd(listing), entry->d_name);
            if (problem == 0) again = true;
            else if (first_error == 0) first_error = problem;
        }
        if (!again) return first_error;
    }
    return 0;
}

int remove_at(int parent, const char* name) noexcept {
    if (::unlinkat(parent, name, 0) == 0 || errno == ENOENT) return 0;
    if (errno != EISDIR && errno != EPERM) return errno;                       // EPERM: what POSIX says of a folder
    const int refused = errno, fd = ::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno == ENOTDIR ? refused : errno;
    const Listing listing(::fdopendir(fd), ::closedir);
    if (!listing) {
        const int code = errno;
        ::close(fd);
        return code;
    }
    if (const int problem = empty(listing.get())) return problem;
    return ::unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : errno;
}

}  // namespace listing_room

std::vector<std::string> names_in(const std::string& folder) {
    const listing_room::Listing listing(::opendir(folder.c_str()), ::closedir);
    if (!listing) fail(Errc::io, "read the folder ", folder, ": ", reason(errno));
    std::vector<std::string> names;
    for (errno = 0; const dirent* entry = ::readdir(listing.get()); errno = 0)
        if (!listing_room::is_dot(entry->d_name)) names.emplace_back(entry->d_name);
    if (errno != 0) fail(Errc::io, "read the folder ", folder, ": ", reason(errno));
    std::sort(names.begin(), names.end());
    return names;
}

int remove_tree(const std::string& path) noexcept { return listing_room::remove_at(AT_FDCWD, path.c_str()); }

}}  // namespace qlora
#endif
