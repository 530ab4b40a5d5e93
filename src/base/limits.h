// limits.h - what the system lets this process use: processors and memory, of the machine and of the container it is
// in.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

// `root` stands before /proc and /sys: tests have their own.
int usable_threads(const std::string& root);           // public without it (qlora.h)
int64_t available_memory(const std::string& root = {});   // bytes that can be asked for now without pushing out anybody
int64_t own_memory(const std::string& root = {});    // bytes that this process has written to; 0 = unknown
int64_t program_memory();    // bytes of the program and its libraries, as they are in memory once all is used

}}  // namespace qlora
