// lora.cpp - new adapters: which layers they sit on, where their factors lie in the flat buffer, and what they start with.
#include "src/model/lora_impl.h"

#include "src/base/rng.h"
#include "src/model/family.h"

#include <algorithm>
#include <cmath>

namespace qlora::inline v0_1 {

std::vector<Module> parse_modules(std::string_view text) {
    std::vector<Module> out;
    auto add = [&](Module m) {
        if (std::find(out.begin(), out.end(), m) == out.end()) out.push_back(m);
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
        int found = -1;
        for (int m = 0; m < module_count; ++m)
            if (name_of(Module(m)) == word) found = m;
        if (found < 0) fail(Errc::argument, "adapter: there is no module \"", word, "\"; use all, attention, mlp, or a list of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
        add(Module(found));
    }
    std::sort(out.begin(), out.end());
    return out;
}

void add_lora_target(LoraImpl& lora, int64_t layer, Module m, int64_t rank, float scale) {
    const Shape shape = linear_shape(lora.base->config, m);
    const int64_t most = 2 * std::max(shape[0], shape[1]);             // twice: a pissa adapter on its original base
    if (rank < 1 || rank > most) fail(Errc::argument, "adapter: rank ", rank, " for ", name_of(m), " of shape ", shape, ", expected 1 to ", most);
    if (!std::isfinite(scale)) fail(Errc::argument, "adapter: the scale of ", name_of(m), " is ", scale);
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

float lora_scale(const LoraOptions& o) { return o.rank_stabilized ? o.alpha / std::sqrt(float(o.rank)) : o.alpha / float(o.rank); }

bool names(std::string_view key, std::string_view name) {
    return !key.empty() && name.ends_with(key) && (name.size() == key.size() || name[name.size() - key.size() - 1] == '.');
}

bool selects(const LoraOptions& o, int64_t layer, Module m) {
    if (!o.layers.empty() && std::find(o.layers.begin(), o.layers.end(), layer) == o.layers.end()) return false;
    const std::string name = hf_name(layer, m);
    return std::none_of(o.exclude.begin(), o.exclude.end(), [&](const std::string& key) { return names(key, name); });
}

LoraOptions options_at(const LoraOptions& o, int64_t layer, Module m) {
    LoraOptions local = o;
    const std::string name = hf_name(layer, m);
    const auto fits = [&](const auto& entry) { return names(entry.first, name); };
    if (const auto r = std::find_if(o.rank_pattern.begin(), o.rank_pattern.end(), fits); r != o.rank_pattern.end()) local.rank = r->second;
    if (const auto a = std::find_if(o.alpha_pattern.begin(), o.alpha_pattern.end(), fits); a != o.alpha_pattern.end()) local.alpha = a->second;
    return local;
}

std::shared_ptr<LoraImpl> empty_lora(std::shared_ptr<const ModelImpl> base, const LoraOptions& options) {
    if (int(options.init) < 0 || options.init > LoraInit::pissa) fail(Errc::argument, "adapter: init ", int(options.init), " is none of standard, loftq, pissa");
    if (options.rank < 1) fail(Errc::argument, "adapter: the rank must be at least 1, is ", options.rank);
    if (!std::isfinite(options.alpha)) fail(Errc::argument, "adapter: alpha must be a finite number");
    if (!(options.dropout >= 0 && options.dropout < 1)) fail(Errc::argument, "adapter: the dropout must be in [0, 1), is ", options.dropout);
    for (const int64_t layer : options.layers)
        if (layer < 0 || layer >= base->config.layers) fail(Errc::argument, "adapter: layer ", layer, " of the chosen layers, the model has 0 to ", base->config.layers - 1);
    auto lora = std::make_shared<LoraImpl>();
    lora->base = std::move(base);
    lora->options = options;
    return lora;
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

const LoraTarget* LoraImpl::find(int64_t layer, Module m) const {
    const auto it = std::lower_bound(targets.begin(), targets.end(), std::pair(layer, m), [](const LoraTarget& t, const auto& key) { return std::pair(t.layer, t.module) < key; });
    return it != targets.end() && it->layer == layer && it->module == m ? &*it : nullptr;
}

// A name that fits no layer is a slip of the pen. Loading does not ask: there the tensors say which layers there are.
void check_names(const LoraOptions& o, const Config& c) {
    const auto check = [&](const std::string& key, const char* where) {
        for (int64_t layer = 0; layer < c.layers; ++layer)
            for (int m = 0; m < module_count; ++m)
                if (names(key, hf_name(layer, Module(m)))) return;
        fail(Errc::argument, "adapter: \"", key, "\" of ", where, " names no linear layer; names are like down_proj or layers.0.mlp.down_proj");
    };
    for (const std::string& key : o.exclude) check(key, "exclude");
    for (const auto& [key, rank] : o.rank_pattern) check(key, "rank_pattern");
    for (const auto& [key, alpha] : o.alpha_pattern) check(key, "alpha_pattern");
}

// A ~ U(-1 / sqrt(in), 1 / sqrt(in)), which is what PEFT's kaiming_uniform(a = sqrt(5)) amounts to; B = 0, so that the adapter starts as
// the base model. Target t draws from stream t of the seed: the values depend on nothing else.
std::shared_ptr<LoraImpl> create_lora(std::shared_ptr<const ModelImpl> base, const LoraOptions& options) {
    const std::vector<Module> modules = parse_modules(options.modules);
    auto lora = empty_lora(std::move(base), options);
    check_names(options, lora->base->config);
    for (int64_t layer = 0; layer < lora->base->config.layers; ++layer)
        for (Module m : modules) {
            if (!selects(options, layer, m)) continue;
            const LoraOptions local = options_at(options, layer, m);
            add_lora_target(*lora, layer, m, local.rank, lora_scale(local));
        }
    if (lora->targets.empty()) fail(Errc::argument, "adapter: modules, layers and exclude together leave no linear layer");
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

}  // namespace qlora
