// folder.cpp - folders, written so that they appear whole or not at all.
#include "src/base/descriptor.h"
#include "src/base/file.h"

#include <cstdio>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace folder_room {

void sync_tree(const std::string& folder) {
    for (const std::string& name : names_in(folder)) {
        const std::string path = folder + '/' + name;
        sys::Status status{};
        if (sys::lstat(path.c_str(), &status) != 0) fail(Errc::io, "write ", path, ": ", reason(errno));
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
    if (sys::rename(target.c_str(), old.c_str()) != 0) fail(Errc::io, "replace ", target, ": ", reason(errno));
    if (sys::rename(fresh.c_str(), target.c_str()) != 0) {
        const int code = errno;
        sys::rename(old.c_str(), target.c_str());
        fail(Errc::io, "replace ", target, ": ", reason(code));
    }
    return old;
}

std::string without_slashes(std::string path) {
    while (path.size() > 1 && std::strchr(sys::separators, path.back()) != nullptr) path.pop_back();
    return path;
}

}  // namespace folder_room

AtomicFolder::AtomicFolder(const std::string& target, bool replace)
    : target_(folder_room::without_slashes(target)), replace_(replace) {
    if (target_.empty()) fail(Errc::argument, "write: the path of the folder is empty");
    if (exists(target_) && !replace)
        fail(Errc::io, "write ", target_, ": exists already; choose another name or remove it");
    if (exists(target_) && !is_folder(target_)) fail(Errc::io, "write ", target_, ": exists and is not a folder");
    int code = 0;
    do {
        temporary_ = temporary_name(target_);
        code = sys::mkdir(temporary_.c_str(), 0777) == 0 ? 0 : errno;    // kept: whatever is called next has its own
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
    } else if (sys::rename(temporary_.c_str(), target_.c_str()) != 0) {
        fail(Errc::io, "write ", target_, ": ", reason(errno));
    }
    done_ = true;
    if (const int code = sync_path(folder_of(target_), true))
        fail(Errc::io, "write ", target_, ": written, but its folder could not be synced: ", reason(code));
    if (!old.empty()) remove_tree(old);
}

}}  // namespace qlora
