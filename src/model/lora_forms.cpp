// lora_forms.cpp - adapters made of adapters: a copy, and a sum.
//
// sum_i s_i scale_i B_i A_i is one adapter of the sum of their ranks: the A lie below each other, the B, times their
// factors, side by side.
#include "src/model/lora_impl.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace qlora { inline namespace QLORA_ABI {
namespace lora_forms_room {

struct Part { const LoraImpl* lora; float scale; std::vector<float> values; };

void check(std::span<const std::shared_ptr<LoraImpl>> loras, std::span<const float> scales) {
    if (loras.empty() || loras.size() != scales.size())
        fail(Errc::argument, "Lora::sum: ", loras.size(), " adapters and ", scales.size(),
             " scales; expected one of each at least, and as many of both");
    for (size_t i = 0; i < loras.size(); ++i) {
        if (loras[i]->base != loras[0]->base)
            fail(Errc::argument, "Lora::sum: adapter ", i, " is on another base than adapter 0; load both onto one");
        if (loras[i]->options.dora || !loras[i]->start.empty())
            fail(Errc::unsupported, "Lora::sum: adapter ", i, " is a ", loras[i]->options.dora ? "dora" : "pissa",
                 " adapter, which is more than a sum; merge it into its base");
        if (!std::isfinite(scales[i])) fail(Errc::argument, "Lora::sum: scale ", i, " is ", scales[i]);
    }
}

// The target of that place, of every part that has it: A below A, B beside B.
void add_target(LoraImpl& sum, std::vector<float>& values, const std::vector<Part>& parts, int64_t layer, Module m) {
    std::vector<std::pair<const Part*, const LoraTarget*>> found;
    int64_t rank = 0;
    for (const Part& part : parts)
        if (const LoraTarget* t = part.lora->find(layer, m)) {
            found.emplace_back(&part, t);
            rank += t->rank;
        }
    add_lora_target(sum, layer, m, rank, 1);
    for (const auto& [part, t] : found)
        values.insert(values.end(), part->values.begin() + t->a, part->values.begin() + t->b);
    const int64_t out = sum.targets.back().out;
    for (int64_t row = 0; row < out; ++row)
        for (const auto& [part, t] : found)
            for (int64_t r = 0; r < t->rank; ++r)
                values.push_back(part->scale * t->scale * part->values[size_t(t->b + row * t->rank + r)]);
}

}  // namespace lora_forms_room

std::shared_ptr<LoraImpl> copy_lora(const LoraImpl& lora) {
    const auto held = lora.lock.read();
    auto out = std::make_shared<LoraImpl>();
    out->base = lora.base;
    out->options = lora.options;
    out->targets = lora.targets;
    out->parameters = lora.parameters;
    out->start = lora.start;
    out->record = lora.record;
    set_lora_values(*out, lora_values(lora));
    return out;
}

std::shared_ptr<LoraImpl> sum_loras(std::span<const std::shared_ptr<LoraImpl>> loras, std::span<const float> scales) {
    namespace room = lora_forms_room;
    room::check(loras, scales);
    std::vector<room::Part> parts;
    std::set<std::pair<int64_t, Module>> places;
    for (size_t i = 0; i < loras.size(); ++i) {
        const auto held = loras[i]->lock.read();
        parts.push_back({loras[i].get(), scales[i], lora_values(*loras[i])});
        for (const LoraTarget& t : loras[i]->targets) places.insert({t.layer, t.module});
    }
    LoraOptions options;
    std::set<std::string> modules;
    for (const auto& [layer, m] : places) modules.insert(module_name(loras[0]->base->config, m));
    options.modules.clear();
    for (const std::string& name : modules) options.modules += str(options.modules.empty() ? "" : ",", name);
    options.rank = 0;
    for (const auto& lora : loras) options.rank += lora->options.rank;
    options.alpha = float(options.rank);               // the factors of the parts are in B
    auto out = empty_lora(loras[0]->base, options);
    out->record = loras[0]->record;
    std::vector<float> values;
    for (const auto& [layer, m] : places) room::add_target(*out, values, parts, layer, m);
    set_lora_values(*out, values);
    return out;
}

uint64_t fingerprint_of(const LoraImpl& lora) {
    Hash hash;
    constexpr int64_t piece = 1 << 18;                 // floats: the memory plan has no room for a whole copy
    for (int64_t at = 0; at < lora.parameters; at += piece) {
        const std::vector<float> values = lora_values(lora, at, std::min(piece, lora.parameters - at));
        hash.add(values.data(), int64_t(values.size()) * 4);
    }
    return hash.value();
}

}}  // namespace qlora
