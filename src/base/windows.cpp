// windows.cpp - the calls of system.h by those of Windows, and folders there. Compiled with mingw-w64.
#if defined(_WIN32)
#include "src/base/descriptor.h"
#include "src/base/file.h"

#include <algorithm>
#include <cwchar>

#include <io.h>
#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#if !defined(NOGDI)
#define NOGDI                                          // has a macro ERROR
#endif
#include <windows.h>
#include <psapi.h>

namespace qlora { inline namespace QLORA_ABI {
namespace windows_room {

int code_of(DWORD error) {
    switch (error) {
        case ERROR_SUCCESS: return 0;
        case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND: case ERROR_INVALID_NAME: case ERROR_BAD_PATHNAME:
        case ERROR_INVALID_DRIVE: case ERROR_BAD_NETPATH: case ERROR_BAD_NET_NAME: return ENOENT;
        case ERROR_ACCESS_DENIED: return EACCES;
        case ERROR_SHARING_VIOLATION: case ERROR_LOCK_VIOLATION: case ERROR_USER_MAPPED_FILE: return EBUSY;
        case ERROR_FILE_EXISTS: case ERROR_ALREADY_EXISTS: return EEXIST;
        case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL: return ENOSPC;
        case ERROR_NOT_ENOUGH_MEMORY: case ERROR_OUTOFMEMORY: case ERROR_COMMITMENT_LIMIT: return ENOMEM;
        case ERROR_TOO_MANY_OPEN_FILES: return EMFILE;
        case ERROR_DIR_NOT_EMPTY: return ENOTEMPTY;
        case ERROR_DIRECTORY: return ENOTDIR;
        case ERROR_NOT_SAME_DEVICE: return EXDEV;
        case ERROR_INVALID_HANDLE: return EBADF;
        case ERROR_WRITE_PROTECT: return EROFS;
        case ERROR_FILENAME_EXCED_RANGE: return ENAMETOOLONG;
        case ERROR_FILE_TOO_LARGE: return EFBIG;
        case ERROR_BROKEN_PIPE: case ERROR_NO_DATA: return EPIPE;
        default: return EIO;
    }
}

int failed(DWORD error = ::GetLastError()) { errno = code_of(error); return -1; }

// False, with errno, where a path is no UTF-8.
bool widen(const char* path, std::wstring& wide) {
    const int count = ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, nullptr, 0);
    if (count <= 0) { errno = EILSEQ; return false; }
    wide.resize(size_t(count));
    ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide.data(), count);
    wide.pop_back();                                   // the zero
    return true;
}

std::string narrow(const wchar_t* wide) {
    const int count = ::WideCharToMultiByte(CP_UTF8, 0, wide, -1, nullptr, 0, nullptr, nullptr);
    if (count <= 0) fail(Errc::io, "a name of a file is no UTF-16");
    std::string text(size_t(count), '\0');
    ::WideCharToMultiByte(CP_UTF8, 0, wide, -1, text.data(), count, nullptr, nullptr);
    text.pop_back();
    return text;
}

HANDLE handle_of(int fd) { return reinterpret_cast<HANDLE>(::_get_osfhandle(fd)); }

constexpr size_t most_at_once = size_t(1) << 30;            // the counts of the calls have 32 bits
constexpr DWORD shared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

int64_t both(DWORD high, DWORD low) { return int64_t(uint64_t(high) << 32 | low); }

int status_of(HANDLE handle, sys::Status* status) {
    *status = {};
    if (::GetFileType(handle) != FILE_TYPE_DISK) {
        status->st_mode = S_IFCHR;
        return 0;
    }
    BY_HANDLE_FILE_INFORMATION info;
    if (!::GetFileInformationByHandle(handle, &info)) return failed();
    status->st_mode = info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? S_IFDIR : S_IFREG;
    status->st_size = both(info.nFileSizeHigh, info.nFileSizeLow);
    status->changed = both(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime) * 100;
    return 0;
}

int status_of(const char* path, DWORD flags, sys::Status* status) {
    std::wstring wide;
    if (!widen(path, wide)) return -1;
    const HANDLE handle = ::CreateFileW(wide.c_str(), FILE_READ_ATTRIBUTES, shared, nullptr, OPEN_EXISTING,
                                        FILE_FLAG_BACKUP_SEMANTICS | flags, nullptr);    // which opens folders too
    if (handle == INVALID_HANDLE_VALUE) return failed();
    const int result = status_of(handle, status);
    ::CloseHandle(handle);
    return result;
}

}  // namespace windows_room

namespace sys {

using namespace windows_room;

int stat(const char* path, Status* status) { return status_of(path, 0, status); }
int fstat(int fd, Status* status) { return status_of(handle_of(fd), status); }
int lstat(const char* path, Status* status) { return status_of(path, FILE_FLAG_OPEN_REPARSE_POINT, status); }

int open(const char* path, int flags, int) {
    std::wstring wide;
    if (!widen(path, wide)) return -1;
    const bool writes = (flags & (O_WRONLY | O_RDWR)) != 0, reads = !(flags & O_WRONLY);
    const DWORD access = (reads ? GENERIC_READ : 0) | (writes ? GENERIC_WRITE : 0),
                how = !(flags & O_CREAT) ? OPEN_EXISTING : flags & O_EXCL ? CREATE_NEW : OPEN_ALWAYS;
    const HANDLE handle = ::CreateFileW(
        wide.c_str(), access, shared, nullptr, how,
        FILE_ATTRIBUTE_NORMAL | (writes ? 0 : FILE_FLAG_BACKUP_SEMANTICS) |
            (flags & O_TEMPORARY ? FILE_FLAG_DELETE_ON_CLOSE : 0),
        nullptr);
    if (handle == INVALID_HANDLE_VALUE) return failed();
    const int fd = ::_open_osfhandle(reinterpret_cast<intptr_t>(handle), O_BINARY | O_NOINHERIT);
    if (fd < 0) ::CloseHandle(handle);
    return fd;
}

int64_t read(int fd, void* to, size_t bytes) {
    DWORD got = 0;
    if (::ReadFile(handle_of(fd), to, DWORD(std::min(bytes, most_at_once)), &got, nullptr)) return got;
    return ::GetLastError() == ERROR_BROKEN_PIPE ? 0 : failed();
}

int64_t write(int fd, const void* from, size_t bytes) {
    DWORD put = 0;
    const bool written = ::WriteFile(handle_of(fd), from, DWORD(std::min(bytes, most_at_once)), &put, nullptr);
    return written ? int64_t(put) : failed();
}

int close(int fd) { return ::_close(fd); }
int fsync(int fd) { return ::FlushFileBuffers(handle_of(fd)) ? 0 : failed(); }

// A file that is mapped gives way to no other; the system says that access is denied.
int rename(const char* from, const char* to) {
    std::wstring old_name, new_name;
    if (!widen(from, old_name) || !widen(to, new_name)) return -1;
    constexpr DWORD how = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH,
                    never = FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_READONLY;
    if (::MoveFileExW(old_name.c_str(), new_name.c_str(), how)) return 0;
    const DWORD error = ::GetLastError(), there = ::GetFileAttributesW(new_name.c_str());
    const bool may = there != INVALID_FILE_ATTRIBUTES && !(there & never);
    return failed(error == ERROR_ACCESS_DENIED && may ? ERROR_USER_MAPPED_FILE : error);
}

int unlink(const char* path) {
    std::wstring wide;
    if (!widen(path, wide)) return -1;
    return ::DeleteFileW(wide.c_str()) ? 0 : failed();
}

int mkdir(const char* path, int) {
    std::wstring wide;
    if (!widen(path, wide)) return -1;
    return ::CreateDirectoryW(wide.c_str(), nullptr) ? 0 : failed();
}

int open_nameless(const std::string& path) { return open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_TEMPORARY); }

int make_room(int fd, int64_t bytes) {
    LARGE_INTEGER end;
    end.QuadPart = bytes;
    const HANDLE handle = handle_of(fd);
    const bool made = ::SetFilePointerEx(handle, end, nullptr, FILE_BEGIN) && ::SetEndOfFile(handle);
    return made ? 0 : code_of(::GetLastError());
}

void* map(int fd, int64_t bytes, bool writable) {
    const HANDLE section = ::CreateFileMappingW(handle_of(fd), nullptr, writable ? PAGE_READWRITE : PAGE_READONLY,
                                                DWORD(uint64_t(bytes) >> 32), DWORD(bytes), nullptr);
    if (!section) return failed(), nullptr;
    void* const at = ::MapViewOfFile(section, writable ? FILE_MAP_WRITE : FILE_MAP_READ, 0, 0, size_t(bytes));
    if (!at) failed();
    ::CloseHandle(section);                            // the view keeps it
    return at;
}
void unmap(void* at, int64_t) { ::UnmapViewOfFile(at); }

void* addresses(size_t bytes) {
    void* const at = ::VirtualAlloc(nullptr, bytes, MEM_RESERVE, PAGE_NOACCESS);
    if (!at) failed();
    return at;
}
void give_back(void* at, size_t) { ::VirtualFree(at, 0, MEM_RELEASE); }

int64_t page_bytes() {
    SYSTEM_INFO info;
    ::GetSystemInfo(&info);
    return info.dwPageSize;
}

void forget(void* at, size_t bytes) { ::VirtualUnlock(at, bytes); }    // of pages that are not locked: no longer held

int64_t free_memory() {
    MEMORYSTATUSEX status{};
    status.dwLength = sizeof status;
    return ::GlobalMemoryStatusEx(&status) ? int64_t(status.ullAvailPhys) : int64_t(1) << 30;
}

int64_t private_memory() {
    PROCESS_MEMORY_COUNTERS counters{};
    const bool known = ::K32GetProcessMemoryInfo(::GetCurrentProcess(), &counters, sizeof counters);
    return known ? int64_t(counters.PagefileUsage) : 0;
}

}  // namespace sys

namespace windows_room {

struct Search {
    WIN32_FIND_DATAW found;
    HANDLE handle;
    explicit Search(const std::wstring& folder) : handle(::FindFirstFileW((folder + L"\\*").c_str(), &found)) {}
    ~Search() { if (handle != INVALID_HANDLE_VALUE) ::FindClose(handle); }
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;
    bool next() { return ::FindNextFileW(handle, &found) != 0; }
    bool is_dot() const { return std::wcscmp(found.cFileName, L".") == 0 || std::wcscmp(found.cFileName, L"..") == 0; }
};

int remove_all(const std::wstring& path) {
    const DWORD kind = ::GetFileAttributesW(path.c_str());
    if (kind == INVALID_FILE_ATTRIBUTES) {
        const int code = code_of(::GetLastError());
        return code == ENOENT ? 0 : code;
    }
    if (!(kind & FILE_ATTRIBUTE_DIRECTORY))
        return ::DeleteFileW(path.c_str()) || ::GetLastError() == ERROR_FILE_NOT_FOUND ? 0 : code_of(::GetLastError());
    int first_error = 0;
    if (!(kind & FILE_ATTRIBUTE_REPARSE_POINT)) {      // what a link leads to stays
        Search search(path);
        if (search.handle != INVALID_HANDLE_VALUE) do {
            if (search.is_dot()) continue;
            const int problem = remove_all(path + L'\\' + search.found.cFileName);
            if (first_error == 0) first_error = problem;
        } while (search.next());
    }
    if (first_error) return first_error;
    return ::RemoveDirectoryW(path.c_str()) ? 0 : code_of(::GetLastError());
}

}  // namespace windows_room

std::vector<std::string> names_in(const std::string& folder) {
    std::wstring wide;
    if (!windows_room::widen(folder.c_str(), wide)) fail(Errc::io, "read the folder ", folder, ": ", reason(errno));
    windows_room::Search search(wide);
    if (search.handle == INVALID_HANDLE_VALUE)
        fail(Errc::io, "read the folder ", folder, ": ", reason(windows_room::code_of(::GetLastError())));
    std::vector<std::string> names;
    do if (!search.is_dot()) names.push_back(windows_room::narrow(search.found.cFileName)); while (search.next());
    if (const DWORD error = ::GetLastError(); error != ERROR_NO_MORE_FILES)
        fail(Errc::io, "read the folder ", folder, ": ", reason(windows_room::code_of(error)));
    std::sort(names.begin(), names.end());
    return names;
}

int remove_tree(const std::string& path) noexcept {
    try {
        std::wstring wide;
        return windows_room::widen(path.c_str(), wide) ? windows_room::remove_all(wide) : errno;
    } catch (const std::bad_alloc&) {
        return ENOMEM;
    }
}

}}  // namespace qlora
#endif
