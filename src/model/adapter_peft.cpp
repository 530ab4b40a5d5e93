// adapter_peft.cpp - adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors.
//
// Files are in Hugging Face row order. Where the base is a GGUF file with permuted q and k rows (adjacent rotary pairs), the rows of B of
// q_proj and k_proj are permuted on the way out and back on the way in; A acts on the input side and stays as it is.
// Loading is strict: every tensor must find its place, and a field that would change the result and that we do not implement is an error.
#include "src/format/safetensors.h"
#include "src/model/family.h"
#include "src/model/lora_impl.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

namespace qlora::inline v0_1 {

namespace adapter_peft_room {

constexpr std::string_view prefix = "base_model.model.";

bool permuted(const Config& c, Module m) { return c.adjacent_pairs && (m == Module::q_proj || m == Module::k_proj); }

// B {out, rank} between the order of the file and that of the model.
void reorder(const Config& c, Module m, std::vector<float>& b, int64_t rank, bool to_file) {
    if (!permuted(c, m)) return;
    std::vector<float> out(b.size());
    const int64_t rows = int64_t(b.size()) / rank;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t from = to_file ? gguf_row_of_hf(r, c.head_dim) : hf_row_of_gguf(r, c.head_dim);
        std::copy_n(b.begin() + from * rank, rank, out.begin() + r * rank);
    }
    b = std::move(out);
}

Json config_json(const LoraImpl& lora) {
    std::vector<std::string> modules;
    for (const LoraTarget& t : lora.targets)
        if (std::string name(name_of(t.module)); std::find(modules.begin(), modules.end(), name) == modules.end()) modules.push_back(name);
    std::sort(modules.begin(), modules.end());
    Json targets{Json::Array{}}, ranks{Json::Object{}}, alphas{Json::Object{}};
    for (const std::string& m : modules) targets.push(Json(m));
    // Layers that differ from the common rank or scale are named one by one.
    const LoraOptions& o = lora.options;
    for (const LoraTarget& t : lora.targets) {
        const std::string name = hf_name(t.layer, t.module).substr(6);
        const float alpha = o.rank_stabilized ? t.scale * std::sqrt(float(t.rank)) : t.scale * float(t.rank);
        if (t.rank != o.rank) ranks.set(name, Json(t.rank));
        if (std::fabs(alpha - o.alpha) > 1e-6f * std::fabs(o.alpha)) alphas.set(name, Json(double(alpha)));
    }
    Json j{Json::Object{}};
    j.set("alpha_pattern", std::move(alphas));
    j.set("auto_mapping", Json());
    j.set("base_model_name_or_path", Json(lora.base->path));
    j.set("bias", Json("none"));
    j.set("fan_in_fan_out", Json(false));
    j.set("inference_mode", Json(true));
    j.set("init_lora_weights", Json(true));
    j.set("layers_pattern", Json());
    j.set("layers_to_transform", Json());
    j.set("lora_alpha", o.alpha == std::floor(o.alpha) ? Json(int64_t(o.alpha)) : Json(double(o.alpha)));
    j.set("lora_dropout", Json(double(o.dropout)));
    j.set("modules_to_save", Json());
    j.set("peft_type", Json("LORA"));
    j.set("r", Json(o.rank));
    j.set("rank_pattern", std::move(ranks));
    j.set("revision", Json());
    j.set("target_modules", std::move(targets));
    j.set("task_type", Json("CAUSAL_LM"));
    j.set("use_dora", Json(false));
    j.set("use_rslora", Json(o.rank_stabilized));
    return j;
}

}  // namespace adapter_peft_room

void save_lora_peft(const LoraImpl& lora, const std::string& folder) {
    const std::vector<float> values = lora_values(lora);
    SafeTensorsWriter writer;
    for (const LoraTarget& t : lora.targets) {
        const std::string name = std::string(adapter_peft_room::prefix) + hf_name(t.layer, t.module);
        writer.add(name + ".lora_A.weight", {t.rank, t.in}, {values.begin() + t.a, values.begin() + t.a + t.rank * t.in});
        std::vector<float> b(values.begin() + t.b, values.begin() + t.b + t.out * t.rank);
        adapter_peft_room::reorder(lora.base->config, t.module, b, t.rank, true);
        writer.add(name + ".lora_B.weight", {t.out, t.rank}, std::move(b));
    }
    AtomicFolder out(folder, true);
    write_file_atomic(out.path() + "/adapter_config.json", adapter_peft_room::config_json(lora).dump(2) + "\n");
    writer.write(out.path() + "/adapter_model.safetensors");
    out.commit();
}

namespace adapter_peft_room {

// Fields whose default means "not used". Another value would change the result: an error, never ignored.
void refuse_unsupported(const Json& j, const std::string& where) {
    const Json* type = j.find("peft_type");
    if (!type || type->as_string(where + ": peft_type") != "LORA") fail(Errc::unsupported, where, ": peft_type must be LORA");
    if (const Json* bias = j.find("bias"); bias && bias->is_string() && bias->string() != "none") fail(Errc::unsupported, where, ": bias = ", bias->string(), " is not supported, only none");
    static constexpr std::string_view unused[] = {"use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "layer_replication", "modules_to_save", "trainable_token_indices",
        "target_parameters", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config", "megatron_config"};
    for (std::string_view key : unused) {
        const Json* v = j.find(key);
        const bool empty = !v || v->is_null() || (v->is_bool() && !v->boolean()) || (v->is_array() && v->array().empty()) || (v->is_object() && v->object().empty());
        if (!empty) fail(Errc::unsupported, where, ": ", key, " = ", v->dump().substr(0, 80), " is not supported");
    }
}

int64_t positive(const Json& j, std::string_view key, int64_t fallback, const std::string& where) {
    const Json* v = j.find(key);
    const int64_t n = v ? v->as_int(where + ": " + std::string(key)) : fallback;
    if (n < 1 || n > 1 << 20) fail(Errc::format, where, ": ", key, " is ", n, ", expected 1 to ", 1 << 20);
    return n;
}

double finite(const Json& v, const std::string& where) {
    const double n = v.as_number(where);
    if (!std::isfinite(n) || std::fabs(n) > 1e9) fail(Errc::format, where, " is ", n);
    return n;
}

// The value for a module out of rank_pattern or alpha_pattern: PEFT takes the first key that is the name or its end behind a dot.
const Json* pattern(const Json* table, const std::string& name, const std::string& where) {
    if (!table || table->is_null()) return nullptr;
    for (const auto& [key, value] : table->as_object(where)) {
        if (key.find_first_of("*+?[](){}|\\^$") != key.npos) fail(Errc::unsupported, where, ": the pattern \"", key, "\" is a regular expression; only names are supported");
        if (name == key || (name.size() > key.size() && name.compare(name.size() - key.size(), key.size(), key) == 0 && name[name.size() - key.size() - 1] == '.')) return &value;
    }
    return nullptr;
}

// base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight -> layer, module, A or B
struct Name { int64_t layer; Module module; bool is_a; };
std::optional<Name> parse_name(std::string_view full, int64_t layers) {
    if (full.substr(0, prefix.size()) != prefix) return {};
    const std::string_view name = full.substr(prefix.size()), start = "model.layers.";
    if (name.substr(0, start.size()) != start) return {};
    Name out{};
    const auto [end, error] = std::from_chars(name.data() + start.size(), name.data() + name.size(), out.layer);
    if (error != std::errc() || out.layer < 0 || out.layer >= layers) return {};
    for (int m = 0; m < module_count; ++m)
        for (const bool is_a : {true, false})
            if (name == hf_name(out.layer, Module(m)) + (is_a ? ".lora_A.weight" : ".lora_B.weight")) return Name{out.layer, Module(m), is_a};
    return {};
}

}  // namespace adapter_peft_room

std::shared_ptr<LoraImpl> load_lora_peft(std::shared_ptr<const ModelImpl> base, const std::string& folder) {
    namespace room = adapter_peft_room;
    const std::string where = folder + "/adapter_config.json", file = folder + "/adapter_model.safetensors";
    const Json j = Json::parse(read_file(where, int64_t(16) << 20), where);
    room::refuse_unsupported(j, where);
    if (!exists(file) && exists(folder + "/adapter_model.bin")) fail(Errc::unsupported, "load ", folder, ": only adapter_model.bin is there; convert it to safetensors first");
    const auto tensors = SafeTensors::open(file);
    LoraOptions options;
    options.rank = room::positive(j, "r", 8, where);
    options.alpha = float(room::finite(j.find("lora_alpha") ? *j.find("lora_alpha") : Json(8), where + ": lora_alpha"));
    options.dropout = float(room::finite(j.find("lora_dropout") ? *j.find("lora_dropout") : Json(0), where + ": lora_dropout"));
    options.rank_stabilized = j.find("use_rslora") && !j.find("use_rslora")->is_null() && j.find("use_rslora")->as_bool(where + ": use_rslora");
    auto lora = empty_lora(std::move(base), options);
    const Config& c = lora->base->config;
    std::map<std::pair<int64_t, Module>, std::pair<const SafeTensor*, const SafeTensor*>> found;
    for (const SafeTensor& t : tensors->tensors()) {
        const auto name = room::parse_name(t.name, c.layers);
        if (!name) fail(Errc::unsupported, file, ": the tensor ", t.name, " does not belong to a linear layer of the base model (", c.family, ", ", c.layers, " layers)");
        auto& pair = found[{name->layer, name->module}];
        (name->is_a ? pair.first : pair.second) = &t;
    }
    if (found.empty()) fail(Errc::format, file, ": there are no adapter tensors");
    std::string modules;
    for (const auto& [key, ab] : found) {
        const auto& [layer, m] = key;
        const std::string name = hf_name(layer, m);
        if (!ab.first || !ab.second) fail(Errc::format, file, ": ", name, " has lora_", ab.first ? "A" : "B", " but no lora_", ab.first ? "B" : "A");
        const Json *rank_of = room::pattern(j.find("rank_pattern"), name, where + ": rank_pattern"), *alpha_of = room::pattern(j.find("alpha_pattern"), name, where + ": alpha_pattern");
        LoraOptions local = options;
        if (rank_of) local.rank = rank_of->as_int(where + ": rank_pattern");
        if (local.rank < 1) fail(Errc::format, where, ": rank_pattern has ", local.rank, " for ", name);
        if (alpha_of) local.alpha = float(room::finite(*alpha_of, where + ": alpha_pattern"));
        const Shape shape = linear_shape(c, m), a{local.rank, shape[1]}, b{shape[0], local.rank};
        if (ab.first->shape != a || ab.second->shape != b)
            fail(Errc::shape, file, ": ", name, " has A of shape ", ab.first->shape, " and B of shape ", ab.second->shape, ", the configuration and the base model say ", a, " and ", b);
        add_lora_target(*lora, layer, m, local.rank, lora_scale(local));
        if (modules.find(name_of(m)) == modules.npos) modules += (modules.empty() ? "" : ",") + std::string(name_of(m));
    }
    lora->options.modules = modules;
    std::vector<float> values(size_t(lora->parameters));
    for (const LoraTarget& t : lora->targets) {
        const auto& [a, b] = found[{t.layer, t.module}];
        const std::vector<float> fa = tensors->floats(*a);
        std::vector<float> fb = tensors->floats(*b);
        for (const auto& [tensor, list] : {std::pair{a, &fa}, std::pair<const SafeTensor*, const std::vector<float>*>{b, &fb}})
            for (float v : *list)
                if (!std::isfinite(v)) fail(Errc::numeric, file, ": tensor ", tensor->name, " holds ", v);
        room::reorder(c, t.module, fb, t.rank, false);
        std::copy(fa.begin(), fa.end(), values.begin() + t.a);
        std::copy(fb.begin(), fb.end(), values.begin() + t.b);
    }
    set_lora_values(*lora, values);
    return lora;
}

}  // namespace qlora
