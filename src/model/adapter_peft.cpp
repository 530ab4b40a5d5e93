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

// Which layers have adapters, in the fields of the configuration. The options say it where they still describe the targets; an adapter
// of another shape (a file may hold any selection) names every layer in full, which PEFT understands as well.
struct Selection { Json modules{Json::Array{}}, layers, exclude, ranks{Json::Object{}}, alphas{Json::Object{}}; };
Selection selection(const LoraImpl& lora) {
    const LoraOptions& o = lora.options;
    std::vector<Module> modules;
    for (const LoraTarget& t : lora.targets)
        if (std::find(modules.begin(), modules.end(), t.module) == modules.end()) modules.push_back(t.module);
    bool described = true, patterns = true;
    for (int64_t layer = 0; layer < lora.base->config.layers; ++layer)
        for (const Module m : modules) described = described && selects(o, layer, m) == (lora.find(layer, m) != nullptr);
    const auto near = [](float a, float b) { return std::fabs(a - b) <= 1e-6f * std::fabs(b); };
    for (const LoraTarget& t : lora.targets) {
        const LoraOptions local = options_at(o, t.layer, t.module);
        patterns = patterns && local.rank == t.rank && near(t.scale, lora_scale(local));
    }
    Selection s;
    if (described) {
        std::vector<std::string> list;
        for (const Module m : modules) list.emplace_back(name_of(m));
        std::sort(list.begin(), list.end());
        for (const std::string& m : list) s.modules.push(Json(m));
        for (const int64_t layer : o.layers) s.layers.push(Json(layer));
        for (const std::string& key : o.exclude) s.exclude.push(Json(key));
    } else {
        for (const LoraTarget& t : lora.targets) s.modules.push(Json(hf_name(t.layer, t.module)));
    }
    if (patterns) {
        for (const auto& [key, rank] : o.rank_pattern) s.ranks.set(key, Json(rank));
        for (const auto& [key, alpha] : o.alpha_pattern) s.alphas.set(key, Json(double(alpha)));
        return s;
    }
    for (const LoraTarget& t : lora.targets) {
        const std::string name = hf_name(t.layer, t.module).substr(6);
        const float alpha = o.rank_stabilized ? t.scale * std::sqrt(float(t.rank)) : t.scale * float(t.rank);
        if (t.rank != o.rank) s.ranks.set(name, Json(t.rank));
        if (!near(alpha, o.alpha)) s.alphas.set(name, Json(double(alpha)));
    }
    return s;
}

Json config_json(const LoraImpl& lora) {
    const LoraOptions& o = lora.options;
    Selection s = selection(lora);
    Json j{Json::Object{}};
    j.set("alpha_pattern", std::move(s.alphas));
    j.set("auto_mapping", Json());
    j.set("base_model_name_or_path", Json(lora.base->path));
    j.set("bias", Json("none"));
    j.set("exclude_modules", std::move(s.exclude));
    j.set("fan_in_fan_out", Json(false));
    j.set("inference_mode", Json(true));
    j.set("init_lora_weights", o.init == LoraInit::pissa ? Json("pissa") : Json(true));    // pissa: in the note alone
    j.set("layers_pattern", Json());
    j.set("layers_to_transform", std::move(s.layers));
    j.set("lora_alpha", o.alpha == std::floor(o.alpha) ? Json(int64_t(o.alpha)) : Json(double(o.alpha)));
    j.set("lora_dropout", Json(double(o.dropout)));
    j.set("modules_to_save", Json());
    j.set("peft_type", Json("LORA"));
    j.set("r", Json(o.rank));
    j.set("rank_pattern", std::move(s.ranks));
    j.set("revision", Json());
    j.set("target_modules", std::move(s.modules));
    j.set("task_type", Json("CAUSAL_LM"));
    j.set("use_dora", Json(false));
    j.set("use_rslora", Json(o.rank_stabilized));
    return j;
}

// A pissa adapter is saved as the plain one that it is on the original base; the note is its configuration as it was made.
constexpr const char* pissa_note = "qlora_pissa";

void save(const LoraImpl& lora, const std::string& folder, const std::string& note) {
    const std::vector<float> values = lora_values(lora);
    SafeTensorsWriter writer;
    if (!note.empty()) writer.metadata.emplace_back(pissa_note, note);
    for (const LoraTarget& t : lora.targets) {
        const std::string name = std::string(prefix) + hf_name(t.layer, t.module);
        writer.add(name + ".lora_A.weight", {t.rank, t.in}, {values.begin() + t.a, values.begin() + t.a + t.rank * t.in});
        std::vector<float> b(values.begin() + t.b, values.begin() + t.b + t.out * t.rank);
        reorder(lora.base->config, t.module, b, t.rank, true);
        writer.add(name + ".lora_B.weight", {t.out, t.rank}, std::move(b));
    }
    AtomicFolder out(folder, true);
    write_file_atomic(out.path() + "/adapter_config.json", config_json(lora).dump(2) + "\n");
    writer.write(out.path() + "/adapter_model.safetensors");
    out.commit();
}

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
    // These change the base model before they start, and PEFT changes it again when it loads them. Only pissa does it to the same result.
    if (const Json* init = j.find("init_lora_weights"); init && init->is_string()) {
        static constexpr std::string_view known[] = {"gaussian", "eva", "orthogonal", "pissa"};
        if (std::find(std::begin(known), std::end(known), init->string()) == std::end(known))
            fail(Errc::unsupported, where, ": init_lora_weights = ", init->string(), " stands on a changed base model, which is not supported; save that model and set the field to true, or convert the adapter with PEFT's path_initial_model_for_weight_conversion");
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

// Names and the values beside them. A key may be a regular expression in PEFT; names are the expressions that fit themselves.
const std::string& plain_name(const std::string& key, const std::string& where) {
    if (key.find_first_of("*+?[](){}|\\^$") != key.npos) fail(Errc::unsupported, where, ": the pattern \"", key, "\" is a regular expression; only names are supported");
    return key;
}

LoraOptions read_options(const Json& j, const std::string& where) {
    const auto given = [&](const char* key) { const Json* v = j.find(key); return v && !v->is_null() ? v : nullptr; };
    const auto at = [&](const char* key) { return where + ": " + key; };
    LoraOptions o;
    o.rank = positive(j, "r", 8, where);
    o.alpha = float(finite(given("lora_alpha") ? *given("lora_alpha") : Json(8), at("lora_alpha")));
    o.dropout = float(finite(given("lora_dropout") ? *given("lora_dropout") : Json(0), at("lora_dropout")));
    o.rank_stabilized = given("use_rslora") && given("use_rslora")->as_bool(at("use_rslora"));
    if (const Json* v = given("rank_pattern"))
        for (const auto& [key, rank] : v->as_object(at("rank_pattern"))) o.rank_pattern.emplace_back(plain_name(key, at("rank_pattern")), positive(*v, key, 0, at("rank_pattern")));
    if (const Json* v = given("alpha_pattern"))
        for (const auto& [key, alpha] : v->as_object(at("alpha_pattern"))) o.alpha_pattern.emplace_back(plain_name(key, at("alpha_pattern")), float(finite(alpha, at("alpha_pattern") + ": " + key)));
    if (const Json* v = given("exclude_modules"))
        for (const Json& key : v->as_array(at("exclude_modules")))
            o.exclude.push_back(plain_name(key.as_string(at("exclude_modules")), at("exclude_modules")));
    if (const Json* v = given("layers_to_transform"))
        for (const Json& layer : v->is_int() ? Json::Array{*v} : v->as_array(at("layers_to_transform"))) o.layers.push_back(layer.as_int(at("layers_to_transform")));
    if (const Json* v = given("layers_pattern"))
        for (const Json& key : v->is_string() ? Json::Array{*v} : v->as_array(at("layers_pattern")))
            if (const std::string& k = key.as_string(at("layers_pattern")); k != "layers" && !k.empty()) fail(Errc::unsupported, at("layers_pattern"), " = ", k, " is not supported, only layers");
    if (const Json* v = given("init_lora_weights"); v && v->is_string() && v->string() == "pissa") o.init = LoraInit::pissa;
    return o;
}

// PEFT makes no adapter where its own fields rule one out, and drops what a file holds for it: such a file contradicts itself.
void check_selected(const Json& j, const LoraOptions& o, int64_t layer, Module m, const std::string& where, const std::string& file) {
    const Json* targets = j.find("target_modules");
    const std::string name = hf_name(layer, m);
    bool listed = !targets || !targets->is_array();    // a string is an expression: what it says is in the file's tensors
    if (!listed)
        for (const Json& key : targets->array()) listed = listed || names(key.as_string(where + ": target_modules"), name);
    if (!listed || !selects(o, layer, m))
        fail(Errc::format, file, ": there are tensors for ", name, ", which ", listed ? "layers_to_transform or exclude_modules" : "target_modules", " of ", where, " rules out");
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

// On a base that cannot be split (its own file is in 4 bits) the adapter stays the plain one that the file holds.
std::shared_ptr<LoraImpl> with_note(std::shared_ptr<LoraImpl> plain, const std::string& note, const std::string& where) {
    LoraOptions options = read_options(Json::parse(note, where), where);
    options.modules = plain->options.modules;
    if (options.init != LoraInit::pissa) fail(Errc::format, where, ": expected a configuration with init_lora_weights = pissa");
    return can_split(*plain) ? with_start(*plain, options) : plain;
}

}  // namespace adapter_peft_room

void save_lora_peft(const LoraImpl& lora, const std::string& folder) {
    namespace room = adapter_peft_room;
    if (lora.start.empty()) room::save(lora, folder, "");
    else room::save(*without_start(lora), folder, room::config_json(lora).dump());
}

std::shared_ptr<LoraImpl> load_lora_peft(std::shared_ptr<const ModelImpl> base, const std::string& folder) {
    namespace room = adapter_peft_room;
    const std::string where = folder + "/adapter_config.json", file = folder + "/adapter_model.safetensors";
    const Json j = Json::parse(read_file(where, int64_t(16) << 20), where);
    room::refuse_unsupported(j, where);
    if (!exists(file) && exists(folder + "/adapter_model.bin")) fail(Errc::unsupported, "load ", folder, ": only adapter_model.bin is there; convert it to safetensors first");
    const auto tensors = SafeTensors::open(file);
    const LoraOptions options = room::read_options(j, where);
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
        const LoraOptions local = options_at(options, layer, m);
        const Shape shape = linear_shape(c, m), a{local.rank, shape[1]}, b{shape[0], local.rank};
        if (ab.first->shape != a || ab.second->shape != b)
            fail(Errc::shape, file, ": ", name, " has A of shape ", ab.first->shape, " and B of shape ", ab.second->shape, ", the configuration and the base model say ", a, " and ", b);
        room::check_selected(j, options, layer, m, where, file);
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
    for (const auto& [key, note] : tensors->metadata())
        if (key == room::pissa_note) return room::with_note(lora, note, str(file, ": ", key));
    start_lora(*lora, nullptr);
    return lora;
}

}  // namespace qlora
