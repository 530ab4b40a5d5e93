// source.cpp - a path, one file in memory, or the files of a folder in memory.
#include "src/base/source.h"

#include "src/base/access.h"

namespace qlora { inline namespace QLORA_ABI {

struct MemoryFiles {
    std::shared_ptr<const MappedFile> single;          // null: files
    std::map<std::string, std::shared_ptr<const MappedFile>> files;
};

Source Source::memory(std::span<const std::byte> file, std::string name, std::shared_ptr<const void> owner) {
    auto memory = std::make_shared<MemoryFiles>();
    memory->single = MappedFile::memory(file, name, std::move(owner));
    Source source(std::move(name));
    source.memory_ = std::move(memory);
    return source;
}

Source Source::folder(Files files, std::string name) {
    auto memory = std::make_shared<MemoryFiles>();
    const auto owner = std::make_shared<const Files>(std::move(files));
    for (const auto& [file, bytes] : *owner)
        memory->files[file] = MappedFile::memory(std::as_bytes(std::span(bytes)), str(name, "/", file), owner);
    Source source(std::move(name));
    source.memory_ = std::move(memory);
    return source;
}

bool is_in_memory(const Source& source) { return Access::memory(source) != nullptr; }

bool has_files(const Source& source) {
    const MemoryFiles* memory = Access::memory(source);
    return memory ? !memory->single : is_folder(source.name());
}

bool has_file(const Source& folder, const std::string& name) {
    const MemoryFiles* memory = Access::memory(folder);
    return memory ? memory->files.contains(name) : exists(path_in(folder, name));
}

std::string path_in(const Source& folder, const std::string& name) {
    return name.empty() ? folder.name() : str(folder.name(), "/", name);
}

std::shared_ptr<const MappedFile> open_file(const Source& source, const std::string& name) {
    const MemoryFiles* memory = Access::memory(source);
    if (!memory) return MappedFile::open(path_in(source, name));
    if (memory->single && name.empty()) return memory->single;
    const auto at = memory->files.find(name);
    if (at == memory->files.end()) fail(Errc::io, "open ", path_in(source, name), ": there is no such file in memory");
    return at->second;
}

std::string text_of(const Source& source, const std::string& name, int64_t limit) {
    if (!is_in_memory(source)) return read_file(path_in(source, name), limit);
    const auto file = open_file(source, name);
    if (file->size() > limit)
        fail(Errc::io, "read ", file->path(), ": ", file->size(), " bytes, at most ", limit, " are allowed");
    return {reinterpret_cast<const char*>(file->data()), size_t(file->size())};
}

}}  // namespace qlora
