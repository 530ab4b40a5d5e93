// lock_file.h - a file that one process at a time holds; the system releases it when the process dies. And what else a
// folder of a run needs of the system.
#pragma once
#include <cstdio>
#include <string>

namespace program {

int lock_file(const std::string& path);                // its descriptor; -1 with errno, EWOULDBLOCK: held by another
void unlock_file(int fd, const std::string& path);     // and removes it
void remove_if_empty(const std::string& folder);
FILE* appending(const std::string& path);              // fopen

}  // namespace program
