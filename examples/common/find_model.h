// find_model.h - what people call a model or an adapter, as the file or folder that it is.
//
//   a file, or a folder with a model in it                    as it is
//   a folder with one GGUF model in it (in parts, too)        that file
//   Org/Name, where there is no such folder                   its newest snapshot in the local Hub cache
#pragma once
#include <string>

namespace program {

// Error{io} with what to do where there is none, {argument} where a folder has several, {format} where a file is only a
// pointer of git-lfs. Says on stderr what was found under another name.
std::string find_model(const std::string& called);
// The same of an adapter; a folder must hold one.
std::string find_adapter(const std::string& called);
// Of a model that is to be written: a name ending in .gguf is a file, any other a folder. UsageError where it is a name
// of another kind of file.
void check_new_model(const std::string& out);

}  // namespace program
