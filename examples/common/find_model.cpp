// find_model.cpp - see find_model.h. Nothing is downloaded here: the command that does is printed.
#include "examples/common/find_model.h"

#include "examples/common/flags.h"
#include "examples/common/terminal.h"

#include "qlora.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

namespace program {

namespace fs = std::filesystem;
using qlora::Errc;

static bool is_pointer(const fs::path& file) {
    std::error_code unknown;
    if (!fs::is_regular_file(file, unknown) || fs::file_size(file, unknown) > 1024) return false;
    std::string begin(40, '\0');
    std::ifstream(file, std::ios::binary).read(begin.data(), std::streamsize(begin.size()));
    return begin.starts_with("version https://git-lfs.github.com/spec");
}

static void refuse_pointer(const fs::path& file) {
    if (is_pointer(file))
        throw qlora::Error(Errc::format,
                           file.string() + " is a pointer of git-lfs, not the file itself; fetch it: git -C " +
                               (file.has_parent_path() ? file.parent_path().string() : ".") + " lfs pull");
}

// "model-00002-of-00003.gguf" -> 2; 0: no part.
static int64_t part_of(const std::string& name) {
    const size_t of = name.rfind("-of-");
    if (of == std::string::npos || of < 6 || name.size() != of + 14 || name[of - 6] != '-') return 0;
    return std::strtoll(name.substr(of - 5, 5).c_str(), nullptr, 10);
}

static std::string in_folder(const std::string& folder) {
    std::vector<std::string> models;
    std::error_code unknown;
    bool of_a_model = false;    // weights, a configuration or a vocabulary
    for (const std::string& name : qlora::names_in(folder)) {
        const std::string ending = fs::path(name).extension().string();
        of_a_model |= ending == ".safetensors" || ending == ".gguf" || ending == ".bin" || name == "config.json" ||
                      name.starts_with("tokenizer");
        if (ending == ".safetensors" || ending == ".gguf") refuse_pointer(fs::path(folder) / name);
        if (ending == ".gguf" && part_of(name) <= 1 && name.find("mmproj") == std::string::npos) models.push_back(name);
    }
    if (fs::exists(fs::path(folder) / "config.json", unknown)) return folder;
    if (models.empty() && fs::exists(fs::path(folder) / "adapter_config.json", unknown))
        throw qlora::Error(Errc::format, folder + " is an adapter: --adapter takes it, and -m the model it belongs to");
    if (!of_a_model)
        throw qlora::Error(Errc::format, folder +
                                             " holds no model: a folder of one has config.json and .safetensors "
                                             "files, or a .gguf file");
    if (models.empty()) return folder;
    if (models.size() == 1) return (fs::path(folder) / models[0]).string();
    constexpr size_t shown = 8;
    std::string names;
    for (size_t i = 0; i < std::min(shown, models.size()); ++i) names += (i ? ", " : "") + models[i];
    if (models.size() > shown) names += " and " + std::to_string(models.size() - shown) + " more";
    throw qlora::Error(Errc::argument, folder + " holds several models: " + names + "; give one of the files");
}

static std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

#if defined(_WIN32)
constexpr const char* home_variable = "USERPROFILE";
#else
constexpr const char* home_variable = "HOME";
#endif

static fs::path hub_cache() {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
        if (const std::string folder = environment(name); !folder.empty()) return folder;
    if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
    const std::string cache = environment("XDG_CACHE_HOME");
    return (cache.empty() ? fs::path(environment(home_variable)) / ".cache" : fs::path(cache)) / "huggingface" / "hub";
}

// The snapshot that refs/main names, or the newest; of a cache's folder of a model.
static std::string snapshot_in(const fs::path& model) {
    std::error_code unknown;
    if (!fs::is_directory(model / "snapshots", unknown)) return {};
    std::string main;
    std::ifstream(model / "refs" / "main") >> main;
    // a name from a file: no path
    if (!main.empty() && main.find_first_of("/\\") == std::string::npos && main[0] != '.' &&
        fs::is_directory(model / "snapshots" / main, unknown))
        return (model / "snapshots" / main).string();
    std::string newest;
    fs::file_time_type when;
    for (const std::string& name : qlora::names_in((model / "snapshots").string())) {
        const fs::path each = model / "snapshots" / name;
        const fs::file_time_type changed = fs::last_write_time(each, unknown);
        if (fs::is_directory(each, unknown) && (newest.empty() || changed > when)) {
            newest = each.string();
            when = changed;
        }
    }
    return newest;
}

// Org/Name, as the Hub allows names.
static bool is_hub_name(const std::string& name) {
    const size_t slash = name.find('/');
    constexpr const char* allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return slash != std::string::npos && slash > 0 && slash + 1 < name.size() && name[0] != '.' &&
           name.find_first_not_of(allowed) == slash &&
           name.find_first_not_of(allowed, slash + 1) == std::string::npos && !name.ends_with(".gguf");
}

// -> its folder.
static std::string in_hub_cache(const std::string& called) {
    const size_t slash = called.find('/');
    const fs::path cache = hub_cache();
    const std::string snapshot = snapshot_in(cache /
                                             ("models--" + called.substr(0, slash) + "--" + called.substr(slash + 1)));
    if (snapshot.empty())
        throw qlora::Error(Errc::io, called + ": no such file or folder, and not in the Hub cache (" + cache.string() +
                                         "); download it: hf download " + called);
    return snapshot;
}

static void say_found(const std::string& called, const std::string& found) {
    if (is_terminal(2)) std::fprintf(stderr, "%s\n", styled(called + " is " + found, Style::dim, 2).c_str());
}

std::string find_model(const std::string& called) {
    std::error_code unknown;
    if (fs::is_directory(called, unknown)) {
        const std::string snapshot = snapshot_in(called);
        return in_folder(snapshot.empty() ? called : snapshot);
    }
    refuse_pointer(called);
    if (fs::exists(called, unknown)) return called;
    if (!is_hub_name(called))
        throw qlora::Error(Errc::io, called +
                                         ": no such file or folder; a model is a GGUF file, a Hugging Face folder, or "
                                         "Org/Name of what the Hub cache has");
    const std::string found = in_folder(in_hub_cache(called));
    say_found(called, found);
    return found;
}

std::string find_adapter(const std::string& called) {
    std::error_code unknown;
    std::string found = called;
    if (fs::is_directory(called, unknown)) {
        if (const std::string snapshot = snapshot_in(called); !snapshot.empty()) found = snapshot;
    } else if (!fs::exists(called, unknown)) {
        if (!is_hub_name(called))
            throw qlora::Error(Errc::io, called +
                                             ": no such file or folder; an adapter is the folder that finetune -o, "
                                             "PEFT or mlx-lm wrote, or a GGUF adapter");
        found = in_hub_cache(called);
        say_found(called, found);
    } else refuse_pointer(called);
    if (!fs::is_directory(found, unknown)) return found;
    const fs::path folder = found;
    if (fs::exists(folder / "adapter_config.json", unknown) || fs::exists(folder / "manifest.json", unknown))
        return found;
    const char* remedy = "; name the folder that finetune -o, PEFT or mlx-lm wrote";
    if (fs::exists(folder / "config.json", unknown)) remedy = ": it is a model, which -m takes";
    else if (fs::exists(folder / "checkpoints", unknown))
        remedy = ": its run has not ended; finetune --resume auto ends it, and its checkpoints/step-N are adapters too";
    throw qlora::Error(Errc::format, found + " holds no adapter (no adapter_config.json)" + remedy);
}

void check_new_model(const std::string& out) {
    std::string kind = fs::path(out).extension().string();
    if (kind == ".gguf") return;
    for (char& c : kind) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    for (const char* of_a_file :
         {".gguf", ".ggml", ".safetensors", ".bin", ".pt", ".pth", ".json", ".jsonl", ".txt", ".zip"})
        if (kind == of_a_file)
            throw UsageError(out + " would be a folder of that name: end it in .gguf for a file, or in something else "
                                   "for a Hugging Face folder");
}

}    // namespace program
