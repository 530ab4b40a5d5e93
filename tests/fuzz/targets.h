// targets.h - what every fuzz target is made of: valid inputs to begin with, and the reader that they go into. Whatever
// comes in, the only way out of a reader is a result or qlora::Error.
#pragma once
#include "src/model/recommended.h"
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

// A text of JSON with one place after the other gone, or of another kind, or of a value that makes no sense there.
// all: every one of them, else a few from everywhere.
inline Seeds damaged(const std::string& text, bool all) {
    static const std::vector<Json> values{Json(), Json(true), Json(int64_t(-1)), Json(int64_t(3)), Json(INT64_MAX),
                                          Json(1e300), Json("x"), Json(Json::Array{}), Json(Json::Object{})};
    Json whole;
    try { whole = Json::parse(text, "seed"); } catch (const Error&) { return {}; }
    Seeds out;
    size_t number = 0;
    const auto visit = [&](const auto& self, Json& at, int depth) -> void {
        const auto change = [&](Json& place) {
            const Json kept = place;
            for (const Json& value : values)
                if (all || number++ % 37 == 0) {
                    place = value;
                    out.push_back(whole.dump());
                }
            place = kept;
        };
        size_t among = 0;                              // of a long list the first are enough
        if (at.is_array() && depth < 8)
            for (Json& item : at.array())
                if (++among <= 4) change(item), self(self, item, depth + 1);
        if (at.is_object() && depth < 8)
            for (size_t i = 0; i < at.object().size() && i < 64; ++i) {
                change(at.object()[i].second);
                self(self, at.object()[i].second, depth + 1);
                if (!all && number++ % 37) continue;
                const Json::Member kept = at.object()[i];
                at.object().erase(at.object().begin() + int64_t(i));
                out.push_back(whole.dump());
                at.object().insert(at.object().begin() + int64_t(i), kept);
            }
    };
    visit(visit, whole, 0);
    return out;
}

// What the library made of a file, put to use: a model that loads must compute.
inline void use(const std::shared_ptr<ModelImpl>& model) {
    describe(*model);
    recommended_sampling(*model);
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
