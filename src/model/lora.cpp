// lora.cpp - new adapters: which layers they sit on, where their factors lie in the flat buffer, and what they start
// with.
#include "src/model/lora_impl.h"

#include "src/base/rng.h"
#include "src/model/family.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

namespace lora_room {

std::string list_of(const Config& c) {
    std::string names;
    for (int m = 0; m < module_count; ++m)
        if (is_module(c, Module(m))) names += (names.empty() ? "" : ", ") + module_name(c, Module(m));
    return names;
}

// The layers that a word names, by what they are called in the family, or everywhere.
std::vector<Module> named(const Config& c, std::string_view word) {
    std::vector<Module> out;
    for (int i = 0; i < module_count; ++i) {
        const Module m = Module(i);
        if (is_module(c, m) && names(word, hf_name(c, 0, m))) out.push_back(m);
        if (name_of(m) != word || !has(c, m)) continue;
        if (parts_of(c, m).size() > 1)
            fail(Errc::argument, "adapter: ", word, " of a ", c.family, " model is a part of ",
                 module_name(c, module_of(c, m)), ", which has one adapter as a whole; name that");
        if (out.empty() || out.back() != m) out.push_back(m);
    }
    return out;
}

}  // namespace lora_room

std::vector<Module> parse_modules(const Config& c, std::string_view text) {
    std::vector<Module> out;
    auto add = [&](Module m) {
        if (is_module(c, m) && std::find(out.begin(), out.end(), m) == out.end()) out.push_back(m);
    };
    auto add_range = [&](int from, int to) { for (int m = from; m < to; ++m) add(Module(m)); };
    for (size_t at = 0; at <= text.size();) {
        const size_t comma = std::min(text.find(',', at), text.size());
        std::string_view word = text.substr(at, comma - at);
        while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
        while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
        at = comma + 1;
        if (word == "all" || word == "all-linear") { add_range(0, module_count); continue; }
        if (word == "attention") { add_range(0, int(Module::gate_proj)); continue; }
        if (word == "mlp") { add_range(int(Module::gate_proj), module_count); continue; }
        const std::vector<Module> found = lora_room::named(c, word);
        const bool outside = word == "lm_head" || word == "embed_tokens";
        if (found.empty())
            fail(Errc::argument, "adapter: there is no module \"", word,
                 outside ? "\" to train (the head and the embedding stay as they are)" : "\"",
                 "; use all, attention, mlp, or a list of ", lora_room::list_of(c));
        for (const Module m : found) add(m);
    }
    std::sort(out.begin(), out.end());
    return out;
}

void add_module(std::string& list, const Config& c, Module m) {
    const std::string name = module_name(c, m);
    if (("," + list + ",").find("," + name + ",") == std::string::npos) list += (list.empty() ? "" : ",") + name;
}

void add_lora_target(LoraImpl& lora, int64_t layer, Module m, int64_t rank, float scale) {
    const Config& c = lora.base->config;
    const Shape shape = module_shape(c, m, layer);
    const int64_t most = 2 * std::max(shape[0], shape[1]);             // twice: a pissa adapter on its original base
    if (rank < 1 || rank > most)
        fail(Errc::argument, "adapter: rank ", rank, " for ", module_name(c, m), " of shape ", shape,
             ", expected 1 to ", most);
    if (!std::isfinite(scale)) fail(Errc::argument, "adapter: the scale of ", module_name(c, m), " is ", scale);
    LoraTarget t;
    t.layer = layer; t.module = m; t.rank = rank; t.scale = scale;
    t.out = shape[0]; t.in = shape[1];
    t.a = lora.parameters;
    t.b = t.a + rank * t.in;
    lora.parameters = t.b + t.out * rank;
    if (lora.options.dora) {
        t.m = lora.parameters;
        t.norm = lora.targets.empty() ? 0 : lora.targets.back().norm + lora.targets.back().out;
        lora.parameters += t.out;
    }
    lora.targets.push_back(t);
}

// Configurations write a whole alpha as a 64-bit integer; what reads them takes less.
void check_alpha(float alpha, const std::string& name) {
    if (!(std::fabs(alpha) <= most_alpha))
        fail(Errc::argument, "adapter: ", name, " is ", alpha, ", expected a finite number of at most ", most_alpha);
}

float lora_scale(const LoraOptions& o) {
    return o.rank_stabilized ? o.alpha / std::sqrt(float(o.rank)) : o.alpha / float(o.rank);
}

std::shared_ptr<LoraImpl> empty_lora(std::shared_ptr<const ModelImpl> base, const LoraOptions& options) {
    if (int(options.init) < 0 || options.init > LoraInit::pissa)
        fail(Errc::argument, "adapter: init ", int(options.init), " is none of standard, loftq, pissa");
    if (options.rank < 1) fail(Errc::argument, "adapter: the rank must be at least 1, is ", options.rank);
    check_alpha(options.alpha, "alpha");
    for (const auto& [key, alpha] : options.alpha_pattern) check_alpha(alpha, "alpha_pattern: " + key);
    if (!(options.dropout >= 0 && options.dropout < 1))
        fail(Errc::argument, "adapter: the dropout must be in [0, 1), is ", options.dropout);
    for (const int64_t layer : options.layers)
        if (layer < 0 || layer >= base->config.layers)
            fail(Errc::argument, "adapter: layer ", layer, " of the chosen layers, the model has 0 to ",
                 base->config.layers - 1);
    auto lora = std::make_shared<LoraImpl>();
    lora->record = std::make_shared<BaseOfAdapter>();
    lora->base = std::move(base);
    lora->options = options;
    return lora;
}

const BaseRecord& base_of(const LoraImpl& lora) {
    std::call_once(lora.record->once, [&] { lora.record->record = record_of(*lora.base); });
    return lora.record->record;
}

void check_finite(std::span<const float> values, const std::string& where, const std::string& tensor) {
    for (const float v : values)
        if (!std::isfinite(v))
            fail(Errc::numeric, where, ": ", tensor, " holds ", v, "; only finite numbers are written and read");
}

void set_lora_values(LoraImpl& lora, const std::vector<float>& values) {
    lora.values = lora.base->backend->allocate(lora.parameters * 4);
    lora.base->backend->upload(*lora.values, 0, values.data(), lora.parameters * 4);
    ++lora.version;
    if (lora.options.dora) lora.norms = make_norms(lora);
}

std::vector<float> lora_values(const LoraImpl& lora, int64_t first, int64_t count) {
    std::vector<float> values(size_t(count), 0.0f);
    lora.base->backend->download(*lora.values, first * 4, values.data(), count * 4);
    return values;
}
std::vector<float> lora_values(const LoraImpl& lora) { return lora_values(lora, 0, lora.parameters); }

const LoraTarget* LoraImpl::find(int64_t layer, Slot linear) const {
    const Module m = module_of(base->config, linear);
    const auto it = std::lower_bound(
        targets.begin(), targets.end(), std::pair(layer, m),
        [](const LoraTarget& t, const auto& key) { return std::pair(t.layer, t.module) < key; });
    return it != targets.end() && it->layer == layer && it->module == m ? &*it : nullptr;
}

// A ~ U(-1 / sqrt(in), 1 / sqrt(in)), which is what PEFT's kaiming_uniform(a = sqrt(5)) amounts to; B = 0, so that the
// adapter starts as the base model. Target t draws from stream t of the seed: the values depend on nothing else.
std::shared_ptr<LoraImpl> create_lora(std::shared_ptr<const ModelImpl> base, const LoraOptions& options) {
    const std::vector<Module> modules = parse_modules(base->config, options.modules);
    auto lora = empty_lora(std::move(base), options);
    check_names(options, lora->base->config);
    for (int64_t layer = 0; layer < lora->base->config.layers; ++layer)
        for (Module m : modules) {
            if (!selects(lora->base->config, options, layer, m)) continue;
            const LoraOptions local = options_at(lora->base->config, options, layer, m);
            add_lora_target(*lora, layer, m, local.rank, lora_scale(local));
        }
    if (lora->targets.empty())
        fail(Errc::argument, "adapter: modules, layers and exclude together leave no linear layer");
    if (lora->base->backend->is_outline()) {
        lora->values = lora->base->backend->allocate(lora->parameters * 4);
        if (options.dora) lora->norms = make_norms(*lora);
        return lora;
    }
    std::vector<float> values(size_t(lora->parameters), 0.0f);
    for (size_t i = 0; i < lora->targets.size(); ++i) {
        const LoraTarget& t = lora->targets[i];
        Rng rng{options.seed, i, 0};
        const float bound = 1 / std::sqrt(float(t.in));
        for (int64_t e = 0; e < t.rank * t.in; ++e) values[size_t(t.a + e)] = (2 * rng.uniform() - 1) * bound;
    }
    start_lora(*lora, &values);
    set_lora_values(*lora, values);
    if (options.dora) start_magnitudes(*lora);
    return lora;
}

}}  // namespace qlora
