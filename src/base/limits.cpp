// limits.cpp - what the system lets this process use.
//
// Containers are control groups. /proc/self/cgroup names the group of this process, in version 2 as one line
// "0::/path", in version 1 as a line for each controller, "4:cpu,cpuacct:/path". Every group above has limits of its
// own, so the smallest on the way up counts. Inside a container the path may be one of the host's that is not mounted
// here: what is not there is passed over, and the top of what is mounted is the container itself.
#include "src/base/limits.h"

#include "src/base/descriptor.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <thread>

#if defined(__linux__)
#include <link.h>
#include <sched.h>
#endif
#if defined(__APPLE__)
#include <mach/mach.h>
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace limits_room {

constexpr int64_t none = std::numeric_limits<int64_t>::max();

// Files of /proc and /sys say that they have no bytes: they are read until they end. Empty where there is none.
std::string contents(const std::string& path) {
    constexpr size_t most = 1 << 16;
    const Descriptor file(path, O_RDONLY);
    std::string text;
    char part[4096];
    while (file.fd >= 0 && text.size() < most) {
        const ssize_t got = sys::read(file.fd, part, sizeof part);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        text.append(part, size_t(got));
    }
    return text;
}

// The number behind `key` at the start of a line ("" = the first of the text); `missing` where there is none ("max" is
// none).
int64_t number_after(const std::string& text, const std::string& key, int64_t missing) {
    size_t at = 0;
    if (!key.empty()) {
        for (at = text.find(key); at != text.npos && at > 0 && text[at - 1] != '\n';) at = text.find(key, at + 1);
        if (at == text.npos) return missing;
    }
    const char* from = text.c_str() + at + key.size();
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(from, &end, 10);
    return end == from || errno != 0 ? missing : int64_t(value);
}

// The folders of this process's group for a controller, from its own up to the top.
std::vector<std::string> groups(const std::string& root, const std::string& controller) {
    const std::string text = contents(root + "/proc/self/cgroup"), top = root + "/sys/fs/cgroup";
    std::vector<std::string> folders;
    for (size_t from = 0; from < text.size();) {
        const size_t to = std::min(text.find('\n', from), text.size());
        const std::string line = text.substr(from, to - from);
        from = to + 1;
        const size_t first = line.find(':'), second = first == line.npos ? first : line.find(':', first + 1);
        if (second == line.npos) continue;
        const std::string names = ',' + line.substr(first + 1, second - first - 1) + ',';
        const bool unified = names == ",,";
        if (!unified && names.find(',' + controller + ',') == names.npos) continue;
        const std::string base = unified ? top : top + '/' + controller;
        for (std::string path = line.substr(second + 1); !path.empty() && path != "/"; path.resize(path.rfind('/'))) {
            if (path[0] != '/') break;
            folders.push_back(base + path);
        }
        folders.push_back(base);
    }
    return folders;
}

int64_t quota(const std::string& root) {               // processors, rounded up
    int64_t least = none;
    for (const std::string& group : groups(root, "cpu")) {
        int64_t time = -1, period = 0;
        // "150000 100000" or "max 100000"
        if (const std::string both = contents(group + "/cpu.max"); !both.empty()) {
            time = number_after(both, "", -1);
            const size_t space = both.find(' ');
            period = space == both.npos ? 0 : number_after(both.substr(space + 1), "", 0);
        } else {
            time = number_after(contents(group + "/cpu.cfs_quota_us"), "", -1);                // -1 = none
            period = number_after(contents(group + "/cpu.cfs_period_us"), "", 0);
        }
        if (time > 0 && period > 0) least = std::min(least, time / period + (time % period != 0));
    }
    return least;
}

// What the groups still allow. Pages of files count as used there, but give way when memory is asked for.
int64_t group_memory(const std::string& root) {
    int64_t least = none;
    for (const std::string& group : groups(root, "memory")) {
        const bool second = !contents(group + "/memory.current").empty();
        const int64_t limit = number_after(contents(group + (second ? "/memory.max" : "/memory.limit_in_bytes")), "",
                                           none);
        const int64_t used = number_after(contents(group + (second ? "/memory.current" : "/memory.usage_in_bytes")), "",
                                          -1);
        if (limit == none || limit < 0 || used < 0) continue;
        const std::string stat = contents(group + "/memory.stat"), total = second ? "" : "total_";
        const int64_t files = number_after(stat, total + "inactive_file ", 0) +
                              number_after(stat, total + "active_file ", 0);
        least = std::min(least, std::max<int64_t>(0, limit - std::max<int64_t>(0, used - files)));
    }
    return least;
}

int affinity() {
#if defined(__linux__)
    for (int cores = 1024; cores <= 1 << 20; cores *= 2) {    // machines with more cores than cpu_set_t holds
        cpu_set_t* set = CPU_ALLOC(cores);
        if (!set) break;
        const size_t bytes = CPU_ALLOC_SIZE(cores);
        const int found = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (found > 0) return found;
    }
#endif
    return std::max(1, int(std::thread::hardware_concurrency()));
}

// Of the whole machine. The kernel's own estimate counts file pages that give way as free, which a plain count of free
// pages does not.
int64_t machine_memory(const std::string& root) {
    if (const int64_t kib = number_after(contents(root + "/proc/meminfo"), "MemAvailable:", -1); kib >= 0)
        return kib * 1024;
#if defined(_WIN32)
    return sys::free_memory();
#elif defined(__APPLE__)
    vm_statistics64_data_t pages{};
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count) ==
        KERN_SUCCESS)
        return (int64_t(pages.free_count) + int64_t(pages.inactive_count) + int64_t(pages.purgeable_count)) *
               int64_t(::sysconf(_SC_PAGESIZE));
#endif
#if defined(_SC_AVPHYS_PAGES)
    return int64_t(::sysconf(_SC_AVPHYS_PAGES)) * int64_t(::sysconf(_SC_PAGESIZE));
#else
    return int64_t(1) << 30;    // unknown here: one GiB, which every machine that can run this has
#endif
}

}  // namespace limits_room

int usable_threads(const std::string& root) {
    return int(std::clamp<int64_t>(limits_room::quota(root), 1, limits_room::affinity()));
}

int usable_threads() { return usable_threads({}); }

int64_t available_memory(const std::string& root) {
    return std::min(limits_room::machine_memory(root), limits_room::group_memory(root));
}

int64_t own_memory(const std::string& root) {
#if defined(_WIN32)
    if (root.empty()) return sys::private_memory();
#endif
    const int64_t kib = limits_room::number_after(limits_room::contents(root + "/proc/self/status"), "RssAnon:", 0);
    return kib * 1024;
}

int64_t program_memory() {
    int64_t bytes = 0;
#if defined(__linux__)
    ::dl_iterate_phdr([](dl_phdr_info* object, size_t, void* sum) {
        for (int i = 0; i < object->dlpi_phnum; ++i) {
            const auto& part = object->dlpi_phdr[i];
            const bool read_only = part.p_type == PT_LOAD && !(part.p_flags & PF_W);
            if (read_only) *static_cast<int64_t*>(sum) += int64_t(part.p_memsz);
        }
        return 0;
    }, &bytes);
#endif
    return bytes;
}

}}  // namespace qlora
