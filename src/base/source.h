// source.h - what loaders ask a Source (qlora.h) for: the files of a folder, or the one file that it is.
#pragma once
#include "src/base/file.h"

namespace qlora { inline namespace QLORA_ABI {

bool is_in_memory(const Source&);
bool has_files(const Source&);                         // a folder, on disk or in memory
bool has_file(const Source& folder, const std::string& name);
std::string path_in(const Source& folder, const std::string& name);    // for messages
// name: of a file in a folder; empty = the source is the file
std::shared_ptr<const MappedFile> open_file(const Source&, const std::string& name = {});
std::string text_of(const Source&, const std::string& name, int64_t limit);    // Error{io} when missing or larger

}}  // namespace qlora
