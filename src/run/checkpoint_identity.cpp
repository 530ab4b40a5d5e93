// checkpoint_identity.cpp - the sections of a run's identity, their comparison, and what checkpoints of version 0.1.0
// lack of them.
#include "src/run/checkpoint_identity.h"

#include "src/base/file.h"
#include "src/format/safetensors.h"
#include "src/model/family.h"
#include "src/model/lora_impl.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace qlora { inline namespace QLORA_ABI {
namespace checkpoint_identity_room {

// Left out on purpose: epochs, max_steps and max_seconds (a run may be made longer), checkpoint_activations and
// optimizer.paged (the same bytes either way) and max_bad_steps.
Json options_json(const TrainOptions& o, int64_t context) {
    return Json()
        .set("batch", o.batch)
        .set("accumulate", o.accumulate)
        .set("context", context)
        .set("packing", o.packing)
        .set("group_by_length", o.group_by_length)
        .set("learning_rate", double(o.learning_rate))
        .set("min_learning_rate", double(o.min_learning_rate))
        .set("warmup_ratio", double(o.warmup_ratio))
        .set("warmup_steps", o.warmup_steps)
        .set("warmup_start", double(o.warmup_start))
        .set("schedule", int64_t(o.schedule))
        .set("weight_decay", double(o.optimizer.weight_decay))
        .set("beta1", double(o.optimizer.beta1))
        .set("beta2", double(o.optimizer.beta2))
        .set("epsilon", double(o.optimizer.epsilon))
        .set("lora_plus_ratio", double(o.lora_plus_ratio))
        .set("neftune_alpha", double(o.neftune_alpha))
        .set("max_grad_norm", double(o.optimizer.max_grad_norm))
        .set("optimizer", o.optimizer.bits == 8 ? "adamw_8bit" : "adamw")
        .set("seed", hex(o.seed));
}

Json target_json(int64_t rank, float scale) { return Json(str("rank ", rank, ", scale ", scale)); }

Json adapter_json(const LoraImpl& l) {
    Json layers{Json::Object{}};
    for (const LoraTarget& t : l.targets)
        layers.set(hf_name(l.base->config, t.layer, t.module), target_json(t.rank, t.scale));
    Json out =
        Json().set("dropout", double(l.options.dropout)).set("dora", l.options.dora).set("layers", std::move(layers));
    out.set("start", l.start.empty() ? Json("of its own")
                                     : Json("pissa " + hex(hash_bytes(l.start.data(), int64_t(l.start.size()) * 4))));
    return out;
}

Json sizes_json(const Config& c) {
    return Json()
        .set("family", c.family)
        .set("vocabulary", c.vocabulary)
        .set("hidden", c.hidden)
        .set("layers", c.layers)
        .set("heads", c.heads)
        .set("kv_heads", c.kv_heads)
        .set("head_dim", c.head_dim)
        .set("feed_forward", c.feed_forward)
        .set("context", c.context)
        .set("eps", double(c.eps))
        .set("tied", c.tied)
        .set("window", c.window)
        .set("window_from_layer", c.window_from_layer)
        .set("rotated", c.rotated)
        .set("rope_theta", double(c.rope_theta))
        .set("rope_magnitude", double(c.rope_magnitude))
        .set("rope_frequencies",
             hex(hash_bytes(c.inverse_frequencies.data(), int64_t(c.inverse_frequencies.size()) * 4)));
}

Json configuration_json(const Config& c) {
    Json out = sizes_json(c);
    if (!c.long_frequencies.empty())
        out.set("long_frequencies",
                hex(hash_bytes(c.long_frequencies.data(), int64_t(c.long_frequencies.size()) * 4)))
            .set("original_context", int64_t(c.rope_scaling.original_context));
    return out;
}

// Every token as it prints, the special ones, how text is cut, and the chat template.
Json tokenizer_json(const TokenizerImpl* t) {
    if (!t) return Json("none");
    std::string text = str(t->bos, ' ', t->eos, ' ', t->add_bos, t->add_eos, ' ', t->chat_template.size(), ' ',
                           t->chat_template, ' ', hex(t->rules));
    for (const Token id : t->end_of_reply) text += str(' ', id);
    for (Token id = 0; id < t->size(); ++id) text += t->piece(id, true) + '\0';
    return Json(str(t->size(), " tokens, ", hex(hash_bytes(text.data(), int64_t(text.size())))));
}

Json model_json(const LoraImpl& lora) {
    Json out = to_json(base_of(lora));
    std::erase_if(out.object(), [](const Json::Member& m) { return m.first == "library"; });
    return out.set("configuration", configuration_json(lora.base->config))
        .set("tokenizer", tokenizer_json(lora.base->tokenizer.get()));
}

// Names and values of a section, those of objects inside it behind their name and a dot.
void flatten(const Json& section, const std::string& prefix, std::vector<std::pair<std::string, std::string>>& out) {
    for (const auto& [key, value] : section.object()) {
        if (value.is_object()) flatten(value, prefix + key + ".", out);
        else out.emplace_back(prefix + key, value.is_string() ? value.string() : value.dump());
    }
}

// A float that was written as the double it is, in the digits that a float has - unless the other one has the same.
std::string short_number(const std::string& text, const std::string& other) {
    const auto shorter = [](const std::string& number) {
        if (number.empty() || number.find_first_not_of("0123456789.eE+-") != std::string::npos ||
            number.find_first_of(".e") == std::string::npos)
            return number;
        char digits[32];
        std::snprintf(digits, sizeof digits, "%.7g", std::strtod(number.c_str(), nullptr));
        return std::string(digits);
    };
    return shorter(text) == shorter(other) ? text : shorter(text);
}

// Every difference at once, so that a mistaken command line is mended in one go.
std::vector<std::string> differences(const Json& saved, const Json& now) {
    std::vector<std::pair<std::string, std::string>> was, is;
    flatten(saved, "", was);
    flatten(now, "", is);
    const auto value = [](const auto& list, const std::string& key) {
        const auto at = std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.first == key; });
        return at == list.end() ? std::string("absent") : at->second;
    };
    std::vector<std::string> out;
    for (const auto& [key, text] : is)
        if (const std::string old = value(was, key); old != text)
            out.push_back(str(key, " was ", short_number(old, text), " and is ", short_number(text, old)));
    for (const auto& [key, text] : was)
        if (value(is, key) == "absent" && text != "absent") out.push_back(str(key, " was ", text, " and is absent"));
    return out;
}

void compare(const Json& saved, const Json& now, const std::string& what, const std::string& where) {
    const std::vector<std::string> all = differences(saved, now);
    if (all.empty()) return;
    constexpr size_t most = 8;
    std::string text;
    for (size_t i = 0; i < std::min(all.size(), most); ++i) text += (i ? ", " : "") + all[i];
    if (all.size() > most) text += str(" and ", all.size() - most, " more");
    fail(Errc::argument, where, ": the checkpoint was made with another ", what, ": ", text,
         "; resume with the same, or start a new run");
}

const Json& section(const Json& manifest, std::string_view key, const std::string& where) {
    const Json* value = manifest.find(key);
    if (!value || !value->is_object()) fail(Errc::format, where, ": \"", key, "\" of manifest.json is missing");
    return *value;
}

// ---- Version 0.1.0: one fingerprint of the linear layers' first bytes, and an adapter described by the words that
// chose its layers.

uint64_t first_fingerprint(const ModelImpl& m) {
    const Config& c = m.config;
    const int64_t sizes[] = {c.vocabulary, c.hidden,   c.layers,       c.heads,
                             c.kv_heads,   c.head_dim, c.feed_forward, c.context};
    uint64_t h = hash_bytes(sizes, sizeof sizes);
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        for (int i = 0; i < module_count; ++i) {
            const WeightPtr& w = m.at(Module(i), layer);
            if (!w) continue;
            const int64_t kind = int64_t(w->dtype), bytes = std::min<int64_t>(4096, bytes_of(w->dtype, w->elements()));
            h = hash_bytes(&kind, sizeof kind, h);
            h = hash_bytes(on_host(w)->data, bytes, h);
        }
    }
    return h;
}

// The adapter of such a checkpoint, from the PEFT folder inside it; a pissa adapter is in there as the plain one that
// it is elsewhere.
Json first_adapter(const LoraImpl& now, const Json& saved, const std::string& folder, const std::string& where) {
    const std::string file = folder + "/adapter/adapter_config.json";
    if (!exists(file))
        fail(Errc::format, where, ": a checkpoint of version 0.1.0 names its layers in ", file,
             ", which is missing; use an earlier checkpoint");
    const LoraOptions o = read_peft_config(Json::parse(read_file(file, 16 << 20), file), file);
    const auto tensors = SafeTensors::open(folder + "/adapter/adapter_model.safetensors");
    const bool split = !now.start.empty();
    Json layers{Json::Object{}};
    const Config& c = now.base->config;
    for (int64_t layer = 0; layer < c.layers; ++layer)
        for (int m = 0; m < module_count; ++m) {
            if (!is_module(c, Module(m))) continue;
            const std::string name = hf_name(c, layer, Module(m));
            const SafeTensor* a = tensors->find("base_model.model." + name + ".lora_A.weight");
            if (!a || a->shape.size() != 2) continue;
            LoraOptions local = options_at(c, o, layer, Module(m));
            local.rank = a->shape[0];
            layers.set(name, target_json(local.rank / (split ? 2 : 1), lora_scale(local)));
        }
    Json out = Json()
                   .set("dropout", section(saved, "adapter", where).find("dropout")
                                       ? *section(saved, "adapter", where).find("dropout")
                                       : Json(0.0))
                   .set("dora", o.dora)
                   .set("layers", std::move(layers));
    return out.set("start", *adapter_json(now).find("start"));
}

std::vector<std::string> check_first(const TrainerImpl& t, const RunIdentity& now, const Json& manifest,
                                     const std::string& folder, const std::string& where) {
    compare(first_adapter(*t.lora, manifest, folder, where), now.adapter, "adapter", where);
    const Json* fingerprint = section(manifest, "model", where).find("fingerprint");
    compare(Json().set("fingerprint", fingerprint ? *fingerprint : Json()),
            Json().set("fingerprint", hex(first_fingerprint(*t.lora->base))), "base model", where);
    return {
        "this checkpoint was made by version 0.1.0, which recorded neither norms, embeddings and scales of the base "
        "nor its tokenizer, instruction set and precision: these cannot be compared"};
}

}  // namespace checkpoint_identity_room

std::string hex(uint64_t v) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(v));
    return text;
}

RunIdentity identity_of(const TrainerImpl& t) {
    namespace room = checkpoint_identity_room;
    return {room::options_json(t.options, t.context), room::adapter_json(*t.lora), room::model_json(*t.lora),
            Json().set("rows", t.data->size()).set("fingerprint", hex(t.data->fingerprint())),
            t.lora->base->backend->machine()};
}

std::vector<std::string> check_identity(const TrainerImpl& t, const Json& manifest, const std::string& folder,
                                        const std::string& where) {
    namespace room = checkpoint_identity_room;
    const RunIdentity now = identity_of(t);
    Json options = room::section(manifest, "options", where);
    if (!options.find("warmup_start")) options.set("warmup_start", 0.0);                // 0.1.0 knew no other
    // checkpoints from before there were these
    if (!options.find("group_by_length"))
        options.set("group_by_length", false).set("lora_plus_ratio", 1.0).set("neftune_alpha", 0.0);
    room::compare(options, now.options, "set of options", where);
    // Another model's tokenizer makes other rows: the model comes first.
    const auto compare_data = [&] {
        room::compare(room::section(manifest, "data", where), now.data, "data set", where);
    };
    if (!manifest.find("machine")) {
        std::vector<std::string> said = room::check_first(t, now, manifest, folder, where);
        compare_data();
        return said;
    }
    // A model may lie elsewhere by now: what it is decides, not where.
    const auto without_path = [](Json model) {
        std::erase_if(model.object(), [](const Json::Member& m) { return m.first == "model"; });
        return model;
    };
    room::compare(without_path(room::section(manifest, "model", where)), without_path(now.model), "base model", where);
    room::compare(room::section(manifest, "adapter", where), now.adapter, "adapter", where);
    compare_data();
    Json machine = room::section(manifest, "machine", where);
    // from before it was recorded what gradients are made of, which may depend on the processor
    if (const Json* gradients = now.machine.find("gradients"); gradients && !machine.find("gradients"))
        machine.set("gradients", *gradients);
    std::vector<std::string> rounding = room::differences(machine, now.machine);
    for (std::string& line : rounding) line = "the rest of the run is rounded otherwise: " + line;
    return rounding;
}

std::optional<RunMachine> machine_of_manifest(const Json& manifest, const std::string& where) {
    const Json* machine = manifest.find("machine");
    if (!machine || !machine->is_object()) return {};
    const auto text = [&](const char* key) {
        const Json* v = machine->find(key);
        return v ? v->as_string(where + ": " + key) : std::string();
    };
    RunMachine out{text("device"), text("instructions")};
    for (const Compute compute : {Compute::f32, Compute::bf16, Compute::mixed})
        if (text("compute") == name_of(compute)) out.compute = compute;
    if (const Json* v = machine->find("threads"))
        out.threads = int(std::clamp<int64_t>(v->as_int(where + ": threads"), 0, 1024));
    return out;
}

}}  // namespace qlora
