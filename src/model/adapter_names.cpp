// adapter_names.cpp - the rules by which PEFT 0.21 chooses layers by name (check_target_module_exists and
// get_pattern_key). A layer's name is "model.layers.3.mlp.down_proj". Read in this order:
//
//   1. exclude_modules, a string: a regular expression; a layer whose whole name fits gets no adapter.
//      exclude_modules, a list:   a layer that is called so, or whose name ends so behind a dot, gets none.
//   2. target_modules, a string:  "all-linear" in any case is every linear layer but the head; else an expression for
//      whole names.
//      target_modules, a list:    names or their ends, as above. Where only the end fits, layers_to_transform rules out
//                                 all other layers; a layer named in full has an adapter whatever it says.
//      target_modules, null:      the modules that PEFT takes for the family, as if they were listed.
//   3. rank_pattern, alpha_pattern: of the keys in their order, the first that fits as the expression (.*\.)?(KEY)$
//      from the start of the name.
#include "src/model/family.h"
#include "src/model/lora_impl.h"
#include "src/text/pattern.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

bool names(std::string_view key, std::string_view name) {
    return !key.empty() && name.ends_with(key) &&
           (name.size() == key.size() || name[name.size() - key.size() - 1] == '.');
}

namespace adapter_names_room {

// The expression is put together as PEFT does it, so that even a key with an unbalanced | means what it means there.
Pattern expression_of(const std::string& key) {
    return Pattern("(.*\\.)?(" + key + ")$", "adapter: the key \"" + key + "\" of a rank or alpha pattern");
}

bool excluded(const LoraOptions& o, std::string_view name) {
    if (!o.exclude_pattern.empty() && Pattern(o.exclude_pattern, "adapter: exclude_modules").fits(name)) return true;
    return std::any_of(o.exclude.begin(), o.exclude.end(), [&](const std::string& key) { return names(key, name); });
}

// The number between the first two dots behind which there is one, as in model.layers.3.mlp.
bool in_layers(const LoraOptions& o, std::string_view name) {
    if (o.layers.empty()) return true;
    return std::any_of(o.layers.begin(), o.layers.end(),
                       [&](int64_t layer) { return name.find(str(".", layer, ".")) != name.npos; });
}

bool is_all_linear(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    return text == "all-linear";
}

}  // namespace adapter_names_room

bool selects(const Config& c, const LoraOptions& o, int64_t layer, Module m) {
    const std::string name = hf_name(c, layer, m);
    return adapter_names_room::in_layers(o, name) && !adapter_names_room::excluded(o, name);
}

bool peft_adapts(const Config& c, const Json& config, const LoraOptions& o, std::string_view name,
                 const std::string& where) {
    namespace room = adapter_names_room;
    if (room::excluded(o, name)) return false;
    const Json* targets = config.find("target_modules");
    if (targets && targets->is_string()) {
        const std::string_view layers = c.names.modules.empty() ? c.names.layers : c.names.modules;
        if (room::is_all_linear(targets->string())) return name.starts_with(layers);
        return Pattern(targets->string(), where + ": target_modules").fits(name);
    }
    Json::Array of_family;
    for (const std::string_view key : family_named(c.family)->peft_targets) of_family.push_back(Json(key));
    const bool given = targets && !targets->is_null();
    const Json::Array& keys = given ? targets->as_array(where + ": target_modules") : of_family;
    if (keys.empty() && !given)
        fail(Errc::format, where, ": target_modules is null, and PEFT knows none for ", c.family, "; name them");
    bool fits = false;
    for (const Json& key : keys) {
        const std::string& k = key.as_string(where + ": target_modules");
        if (k == name) return true;
        fits = fits || names(k, name);
    }
    return fits && room::in_layers(o, name);
}

LoraOptions options_at(const Config& c, const LoraOptions& o, int64_t layer, Module m) {
    LoraOptions local = o;
    const std::string name = hf_name(c, layer, m);
    const auto fits = [&](const auto& entry) { return adapter_names_room::expression_of(entry.first).begins(name); };
    if (const auto r = std::find_if(o.rank_pattern.begin(), o.rank_pattern.end(), fits); r != o.rank_pattern.end())
        local.rank = r->second;
    if (const auto a = std::find_if(o.alpha_pattern.begin(), o.alpha_pattern.end(), fits); a != o.alpha_pattern.end())
        local.alpha = a->second;
    return local;
}

void check_names(const LoraOptions& o, const Config& c) {
    const auto check = [&](const std::string& key, const char* where, const auto& fits) {
        for (int64_t layer = 0; layer < c.layers; ++layer)
            for (int m = 0; m < module_count; ++m)
                if (is_module(c, Module(m)) && fits(hf_name(c, layer, Module(m)))) return;
        fail(Errc::argument, "adapter: \"", key, "\" of ", where,
             " names no linear layer; names are like down_proj or layers.0.mlp.down_proj");
    };
    const auto check_pattern = [&](const std::string& key, const char* where) {
        const Pattern pattern = adapter_names_room::expression_of(key);
        check(key, where, [&](const std::string& name) { return pattern.begins(name); });
    };
    for (const std::string& key : o.exclude)
        check(key, "exclude", [&](const std::string& name) { return names(key, name); });
    if (!o.exclude_pattern.empty()) {
        const Pattern pattern(o.exclude_pattern, "adapter: exclude_pattern");
        check(o.exclude_pattern, "exclude_pattern", [&](const std::string& name) { return pattern.fits(name); });
    }
    for (const auto& [key, rank] : o.rank_pattern) check_pattern(key, "rank_pattern");
    for (const auto& [key, alpha] : o.alpha_pattern) check_pattern(key, "alpha_pattern");
}

}}  // namespace qlora
