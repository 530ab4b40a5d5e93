// targets.h - what every fuzz target is made of: valid inputs to begin with, and the reader that they go into. Whatever
// comes in, the only way out of a reader is a result or qlora::Error.
#pragma once
#include "tests/model/tiny.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <unistd.h>

namespace fuzz {

using namespace qlora;
using Seeds = std::vector<std::string>;

struct Target {
    std::function<Seeds()> seeds;
    std::function<void(std::string_view)> read;
};
using Targets = std::map<std::string, Target>;

// Where the files that are read lie: gone when the process ends.
inline const std::string& folder() {
    struct Temporary {
        std::string path =
            (std::filesystem::temp_directory_path() / ("qlora_fuzz_" + std::to_string(getpid()))).string();
        Temporary() { std::filesystem::create_directories(path); }
        ~Temporary() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    };
    static const Temporary temporary;
    return temporary.path;
}

inline std::string put(const std::string& name, std::string_view bytes) {
    const std::string path = folder() + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
    return path;
}

inline std::string bytes_of(const std::string& path) { return read_file(path); }

// What the library made of a file, put to use: a model that loads must compute.
inline void use(const std::shared_ptr<ModelImpl>& model) {
    describe(*model);
    if (model->config.vocabulary > 4 && model->config.layers * model->config.hidden < 4096)
        tiny::logits(model, nullptr, Tokens{1, 2, 3});
}

inline void use(const TokenizerImpl& t, std::string_view text) {
    Tokens tokens;
    t.encode(text, tokens);
    t.decode(tokens, true);
    tokens.clear();
    std::vector<int64_t> starts;
    const RenderedTemplate::Span literal{int64_t(text.size() / 3), int64_t(text.size() / 2)};
    t.encode_rendered(text, std::span(&literal, 1), tokens, &starts);
    if (starts.size() != tokens.size()) std::abort();
}

}  // namespace fuzz
