// fields.h - checked access to the fields of a configuration, in both worlds; an error names file and field.
#pragma once
#include "src/base/json.h"
#include "src/format/gguf.h"

#include <cfloat>
#include <cmath>
#include <span>

namespace qlora { inline namespace QLORA_ABI {

struct Alias { std::string_view key, there; };         // what most classes call so, and what this one calls it

struct HfFields {                                      // an object of config.json; null counts as absent
    const Json& json;
    const std::string& where;
    std::span<const Alias> aliases = {};

    // The object's own name for a key: transformers reads both.
    std::string_view own(std::string_view key) const {
        for (const Alias& a : aliases)
            if (a.key == key && (json.find(a.there) || !json.find(key))) return a.there;
        return key;
    }
    const Json* any(std::string_view key) const { return json.find(own(key)); }        // even a null
    const Json* find(std::string_view key) const {
        const Json* v = any(key);
        return v && !v->is_null() ? v : nullptr;
    }
    std::string at(std::string_view key) const { return where + ": " + std::string(own(key)); }
    int64_t integer(std::string_view key, int64_t fallback) const {
        const Json* v = find(key);
        return v ? v->as_int(at(key)) : fallback;
    }
    bool boolean(std::string_view key, bool fallback) const {
        const Json* v = find(key);
        return v ? v->as_bool(at(key)) : fallback;
    }
    double number(std::string_view key, double fallback) const {
        const Json* v = find(key);
        const double value = v ? v->as_number(at(key)) : fallback;
        if (!(std::fabs(value) <= FLT_MAX)) fail(Errc::format, at(key), " is ", value, ", beyond a float");
        return value;
    }
    double needed(std::string_view key) const {
        if (!find(key)) fail(Errc::format, at(key), " is missing");
        return number(key, 0);
    }
    std::string text(std::string_view key, std::string_view fallback) const {
        const Json* v = find(key);
        return v ? v->as_string(at(key)) : std::string(fallback);
    }
};

struct GgufFields {                                    // the keys of an architecture: "llama.block_count"
    const Gguf& file;
    std::string prefix, where;                         // "llama.", the path

    std::string key(std::string_view name) const { return prefix + std::string(name); }
    double number(std::string_view name, double fallback) const { return file.number(key(name), fallback); }
    // One integer for all layers; files may spell it as an array of equal ones. Below 0: no fallback, it must be there.
    int64_t integer(std::string_view name, int64_t fallback) const {
        const std::vector<int64_t> values = file.integers(key(name));
        if (values.empty()) {
            if (fallback < 0) fail(Errc::format, "gguf: ", where, ": the key ", key(name), " is missing");
            return fallback;
        }
        for (int64_t v : values)
            if (v != values[0])
                fail(Errc::unsupported, "gguf: ", where, ": ", key(name),
                     " differs from layer to layer, which is not supported");
        return values[0];
    }
};

}}  // namespace qlora
