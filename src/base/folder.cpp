// folder.cpp - folders: listed, removed, and written so that they appear whole or not at all. On system calls and not
// on std::filesystem: the directory iterators of libstdc++ allocate inside functions that may not throw, and end the
// process where memory is short.
#include "src/base/descriptor.h"
#include "src/base/file.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>

#include <dirent.h>

namespace qlora { inline namespace QLORA_ABI {
namespace folder_room {

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

void sync_tree(const std::string& folder) {
    for (const std::string& name : names_in(folder)) {
        const std::string path = folder + '/' + name;
        struct stat status {};
        if (::lstat(path.c_str(), &status) != 0) fail(Errc::io, "write ", path, ": ", reason(errno));
        if (S_ISDIR(status.st_mode)) sync_tree(path);
        else if (!S_ISREG(status.st_mode)) continue;
        else if (const int problem = sync_path(path, false)) write_failed(path, problem, int64_t(status.st_size));
    }
    if (const int problem = sync_path(folder, true)) write_failed(folder, problem, 0);
}

// Puts `fresh` in the place of `target` in one step where the kernel can swap two names; elsewhere a crash between the
// two renames leaves the old folder under its ".old" name. Returns the name under which the old content is now.
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

std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

}  // namespace folder_room

std::vector<std::string> names_in(const std::string& folder) {
    const folder_room::Listing listing(::opendir(folder.c_str()), ::closedir);
    if (!listing) fail(Errc::io, "read the folder ", folder, ": ", reason(errno));
    std::vector<std::string> names;
    for (errno = 0; const dirent* entry = ::readdir(listing.get()); errno = 0)
        if (!folder_room::is_dot(entry->d_name)) names.emplace_back(entry->d_name);
    if (errno != 0) fail(Errc::io, "read the folder ", folder, ": ", reason(errno));
    std::sort(names.begin(), names.end());
    return names;
}

int remove_tree(const std::string& path) noexcept { return folder_room::remove_at(AT_FDCWD, path.c_str()); }

AtomicFolder::AtomicFolder(const std::string& target, bool replace)
    : target_(folder_room::without_slashes(target)), replace_(replace) {
    if (target_.empty()) fail(Errc::argument, "write: the path of the folder is empty");
    if (exists(target_) && !replace)
        fail(Errc::io, "write ", target_, ": exists already; choose another name or remove it");
    if (exists(target_) && !is_folder(target_)) fail(Errc::io, "write ", target_, ": exists and is not a folder");
    int code = 0;
    do {
        temporary_ = temporary_name(target_);
        code = ::mkdir(temporary_.c_str(), 0777) == 0 ? 0 : errno;    // kept: whatever is called next has its own
    } while (code == EEXIST || code == EINTR);
    if (code) fail(Errc::io, "write ", target_, ": cannot create a folder beside it: ", reason(code));
}

AtomicFolder::~AtomicFolder() {
    if (!done_) remove_tree(temporary_);
}

void AtomicFolder::commit() {
    if (done_) fail(Errc::argument, "write ", target_, ": already committed");
    folder_room::sync_tree(temporary_);
    std::string old;
    if (exists(target_)) {
        if (!replace_)
            fail(Errc::io, "write ", target_, ": somebody created it meanwhile; choose another name or remove it");
        old = folder_room::swap_folders(temporary_, target_);
    } else if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
        fail(Errc::io, "write ", target_, ": ", reason(errno));
    }
    done_ = true;
    if (const int code = sync_path(folder_of(target_), true))
        fail(Errc::io, "write ", target_, ": written, but its folder could not be synced: ", reason(code));
    if (!old.empty()) remove_tree(old);
}

}}  // namespace qlora
