// unnamed_file.h - memory in a file that has no name any more: the system writes its pages out and reads them when they
// are asked for. The file ends with its last user, however that ends.
#pragma once
#include "src/base/error.h"

#include <cstdint>
#include <memory>
#include <string>

namespace qlora { inline namespace QLORA_ABI {

constexpr int64_t file_page = 64 << 10;                // a multiple of every system's pages; where one begins

// Zeros. folder: empty = where temporary files go. Messages begin with `what` and end with `remedy`.
std::shared_ptr<void> map_unnamed_file(const std::string& folder, int64_t bytes, const std::string& what,
                                       const std::string& remedy);
// The whole pages of these bytes of one leave the memory of this process; what they hold stays, in the system's cache
// or in the file.
void let_go(void* at, int64_t bytes);
void call_back(void* at, int64_t bytes);               // they will be needed soon

}}  // namespace qlora
