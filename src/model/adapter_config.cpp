// adapter_config.cpp - adapter_config.json, PEFT's description of an adapter: written, and read field by field.
//
// Every field that PEFT 0.21 knows is in one table: it is read, or it cannot change what a finished adapter computes,
// or it must say "not used". A field that is not in the table must be empty: nothing is ignored that might have meant
// something.
#include "src/model/family.h"
#include "src/model/lora_impl.h"
#include "src/text/pattern.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace adapter_config_room {

// Which layers have adapters, in the fields of the configuration. The options say it where they still describe the
// targets; an adapter of another shape (a file may hold any selection) names every layer in full, which PEFT
// understands as well.
struct Selection { Json modules{Json::Array{}}, layers, exclude, ranks{Json::Object{}}, alphas{Json::Object{}}; };
Selection selection(const LoraImpl& lora) {
    const LoraOptions& o = lora.options;
    const Config& c = lora.base->config;
    std::vector<Module> modules;
    for (const LoraTarget& t : lora.targets)
        if (std::find(modules.begin(), modules.end(), t.module) == modules.end()) modules.push_back(t.module);
    // PEFT has a place for one of the two
    bool described = o.exclude.empty() || o.exclude_pattern.empty(), patterns = true;
    // the part that sees has layers that are called as those of the text
    described = described && c.names.modules.empty();
    for (int64_t layer = 0; layer < c.layers; ++layer)
        for (const Module m : modules)
            described = described && selects(c, o, layer, m) == (lora.find(layer, m) != nullptr);
    // a name that is the end of the head's would choose that too
    const std::string head = tensor_name(World::hf, c, row_of(c, Slot::head), -1);
    for (const Module m : modules)
        if (!c.tied || c.names.tied_head) described = described && !head.ends_with("." + module_name(c, m) + ".weight");
    const auto near = [](float a, float b) { return std::fabs(a - b) <= 1e-6f * std::fabs(b); };
    for (const LoraTarget& t : lora.targets) {
        const LoraOptions local = options_at(c, o, t.layer, t.module);
        patterns = patterns && local.rank == t.rank && near(t.scale, lora_scale(local));
    }
    Selection s;
    if (described) {
        std::vector<std::string> list;
        for (const Module m : modules) list.push_back(module_name(c, m));
        std::sort(list.begin(), list.end());
        for (const std::string& m : list) s.modules.push(Json(m));
        for (const int64_t layer : o.layers) s.layers.push(Json(layer));
        if (!o.exclude_pattern.empty()) s.exclude = Json(o.exclude_pattern);
        for (const std::string& key : o.exclude) s.exclude.push(Json(key));
    } else {
        for (const LoraTarget& t : lora.targets) s.modules.push(Json(hf_name(c, t.layer, t.module)));
    }
    if (patterns) {
        for (const auto& [key, rank] : o.rank_pattern) s.ranks.set(key, Json(rank));
        for (const auto& [key, alpha] : o.alpha_pattern) s.alphas.set(key, Json(double(alpha)));
        return s;
    }
    for (const LoraTarget& t : lora.targets) {
        const std::string full = hf_name(c, t.layer, t.module), name = full.substr(full.find('.') + 1);
        const float alpha = o.rank_stabilized ? t.scale * std::sqrt(float(t.rank)) : t.scale * float(t.rank);
        if (t.rank != o.rank) s.ranks.set(name, Json(t.rank));
        if (!near(alpha, o.alpha)) s.alphas.set(name, Json(double(alpha)));
    }
    return s;
}

}  // namespace adapter_config_room

Json peft_config(const LoraImpl& lora) {
    const LoraOptions& o = lora.options;
    adapter_config_room::Selection s = adapter_config_room::selection(lora);
    Json j{Json::Object{}};
    j.set("alpha_pattern", std::move(s.alphas));
    j.set("auto_mapping", Json());
    j.set("base_model_name_or_path", Json(lora.base->path));
    j.set("bias", Json("none"));
    j.set("exclude_modules", std::move(s.exclude));
    j.set("fan_in_fan_out", Json(lora.base->config.names.transposed));
    j.set("inference_mode", Json(true));
    j.set("init_lora_weights", o.init == LoraInit::pissa ? Json("pissa") : Json(true));    // pissa: in the note alone
    j.set("layers_pattern", Json());
    j.set("layers_to_transform", std::move(s.layers));
    check_alpha(o.alpha, "alpha");
    j.set("lora_alpha", o.alpha == std::floor(o.alpha) ? Json(int64_t(o.alpha)) : Json(double(o.alpha)));
    j.set("lora_dropout", Json(double(o.dropout)));
    j.set("modules_to_save", Json());
    j.set("peft_type", Json("LORA"));
    j.set("r", Json(o.rank));
    j.set("rank_pattern", std::move(s.ranks));
    j.set("revision", Json());
    j.set("target_modules", std::move(s.modules));
    j.set("task_type", Json("CAUSAL_LM"));
    j.set("use_dora", Json(o.dora));
    j.set("use_rslora", Json(o.rank_stabilized));
    return j;
}

namespace adapter_config_room {

// What a field without a part in the computation may hold.
enum Kinds { boolean = 1, integer = 2, text = 4, object = 8 };
struct Field {
    std::string_view name;
    enum Rule { read, harmless, unused } rule;
    int kinds = 0;                                     // harmless: any of these, or null
};

constexpr Field fields[] = {{"alora_invocation_tokens", Field::unused},
                            {"alpha_pattern", Field::read},
                            {"arrow_config", Field::unused},
                            {"auto_mapping", Field::harmless, object},
                            // of how it started: init_lora_weights is read
                            {"base_model_name_or_path", Field::harmless, text},
                            {"bias", Field::read},
                            {"corda_config", Field::harmless, object},
                            {"ensure_weight_tying", Field::harmless, boolean},
                            {"eva_config", Field::harmless, object},
                            {"exclude_modules", Field::read},
                            // PEFT sets it as the layer needs it, whatever is said here
                            {"fan_in_fan_out", Field::harmless, boolean},
                            {"inference_mode", Field::harmless, boolean},
                            {"init_lora_weights", Field::read},
                            {"kasa_config", Field::unused},
                            {"layer_replication", Field::unused},
                            {"layers_pattern", Field::read},
                            {"layers_to_transform", Field::read},
                            {"loftq_config", Field::harmless, object},
                            {"lora_alpha", Field::read},
                            {"lora_bias", Field::unused},
                            {"lora_dropout", Field::read},
                            {"lora_ga_config", Field::harmless, object},
                            {"megatron_config", Field::unused},
                            {"megatron_core", Field::harmless, text},
                            {"modules_to_save", Field::unused},
                            {"monteclora_config", Field::unused},
                            {"peft_type", Field::read},
                            {"peft_version", Field::harmless, text},
                            {"qalora_group_size", Field::harmless, integer},
                            {"r", Field::read},
                            {"rank_pattern", Field::read},
                            {"revision", Field::harmless, text},
                            {"target_modules", Field::read},
                            {"target_parameters", Field::unused},
                            {"task_type", Field::harmless, text},
                            {"trainable_token_indices", Field::unused},
                            {"use_bdlora", Field::unused},
                            {"use_dora", Field::read},
                            {"use_qalora", Field::unused},
                            {"use_rslora", Field::read},
                            {"velora_config", Field::unused}};

bool empty(const Json& v) {
    return v.is_null() || (v.is_bool() && !v.boolean()) || (v.is_array() && v.array().empty()) ||
           (v.is_object() && v.object().empty());
}

void check_fields(const Json& j, const std::string& where) {
    for (const auto& [key, value] : j.as_object(where)) {
        const auto field = std::find_if(std::begin(fields), std::end(fields),
                                        [&, name = std::string_view(key)](const Field& f) { return f.name == name; });
        const bool known = field != std::end(fields);
        if (known && field->rule == Field::read) continue;
        if (!known || field->rule == Field::unused) {
            if (empty(value)) continue;
            fail(Errc::unsupported, where, ": ", key, " = ", value.dump().substr(0, 80),
                 known ? " is not supported" : " is not a field that this version knows",
                 "; merged by PEFT (merge_and_unload(), then save_pretrained()) it is a model, which can be loaded");
        }
        const bool fits = value.is_null() || (value.is_bool() && field->kinds & boolean) ||
                          (value.is_int() && field->kinds & integer) || (value.is_string() && field->kinds & text) ||
                          (value.is_object() && field->kinds & object);
        const char* expected = field->kinds == boolean   ? "true or false"
                               : field->kinds == integer ? "an integer"
                               : field->kinds == text    ? "a string"
                                                         : "an object";
        if (!fits) fail(Errc::format, where, ": ", key, " is ", value.dump().substr(0, 80), ", expected ", expected);
    }
}

int64_t positive(const Json& v, const std::string& where) {
    const int64_t n = v.as_int(where);
    if (n < 1 || n > 1 << 20) fail(Errc::format, where, " is ", n, ", expected 1 to ", 1 << 20);
    return n;
}

double finite(const Json& v, const std::string& where) {
    const double n = v.as_number(where);
    if (!std::isfinite(n) || std::fabs(n) > 1e9) fail(Errc::format, where, " is ", n);
    return n;
}

// An expression that can be read, so that whoever matches it later need not name the file.
const std::string& expression(const std::string& text, const std::string& where) {
    Pattern(text, where);
    return text;
}

// First of all: the fields of another method would only be called unknown.
void check_method(const Json& j, const std::string& where) {
    const Json* type = j.is_object() ? j.find("peft_type") : nullptr;
    if (!type) return;
    if (!type->is_string())
        fail(Errc::format, where, ": peft_type is ", type->dump().substr(0, 80), ", expected \"LORA\"");
    if (type->string() != "LORA")
        fail(Errc::unsupported, where, ": peft_type is \"", type->string(),
             "\": only adapters of the method LORA can be loaded");
}

void check_alphas(const LoraOptions& o, const std::string& where) {
    check_alpha(o.alpha, where + ": lora_alpha");
    for (const auto& [key, alpha] : o.alpha_pattern) check_alpha(alpha, where + ": alpha_pattern: " + key);
}

// Starts that change the base model, which PEFT changes again when it loads them: only pissa does it to the same result
// every time.
LoraInit read_init(const Json& v, const std::string& where) {
    if (v.is_bool() || v.is_null()) return LoraInit::standard;
    const std::string& name = v.as_string(where);
    if (name == "pissa") return LoraInit::pissa;
    // they decide the first values alone
    if (name == "gaussian" || name == "eva" || name == "orthogonal") return LoraInit::standard;
    fail(Errc::unsupported, where, " = ", name,
         " is not supported: PEFT makes another base model or another training of it; save that model and set the "
         "field to true, or convert the adapter "
         "with PEFT's path_initial_model_for_weight_conversion");
}

}  // namespace adapter_config_room

LoraOptions read_peft_config(const Json& j, const std::string& where, std::string_view layers) {
    namespace room = adapter_config_room;
    room::check_method(j, where);
    room::check_fields(j, where);
    const auto at = [&](const char* key) { return where + ": " + key; };
    const auto given = [&](const char* key) { const Json* v = j.find(key); return v && !v->is_null() ? v : nullptr; };
    const auto list = [&](const char* key, bool one) {
        const Json* v = given(key);
        return !v ? Json::Array{} : one && !v->is_array() ? Json::Array{*v} : v->as_array(at(key));
    };
    const auto flag = [&](const char* key) { const Json* v = j.find(key); return v && v->as_bool(at(key)); };
    if (!j.find("peft_type")) fail(Errc::format, at("peft_type"), " is missing, expected \"LORA\"");
    if (const Json* v = j.find("bias"); v && v->as_string(at("bias")) != "none")
        fail(Errc::unsupported, at("bias"), " = ", v->string(), " is not supported, only none");
    LoraOptions o;
    o.rank = room::positive(j.find("r") ? *j.find("r") : Json(8), at("r"));
    o.alpha = float(room::finite(j.find("lora_alpha") ? *j.find("lora_alpha") : Json(8), at("lora_alpha")));
    o.dropout = float(room::finite(j.find("lora_dropout") ? *j.find("lora_dropout") : Json(0), at("lora_dropout")));
    if (!(o.dropout >= 0 && o.dropout < 1))
        fail(Errc::format, at("lora_dropout"), " is ", o.dropout, ", expected 0 to below 1");
    o.rank_stabilized = flag("use_rslora");
    o.dora = flag("use_dora");
    if (const Json* v = given("rank_pattern"))
        for (const auto& [key, rank] : v->as_object(at("rank_pattern")))
            o.rank_pattern.emplace_back(room::expression(key, at("rank_pattern")),
                                        room::positive(rank, at("rank_pattern") + ": " + key));
    if (const Json* v = given("alpha_pattern"))
        for (const auto& [key, alpha] : v->as_object(at("alpha_pattern")))
            o.alpha_pattern.emplace_back(room::expression(key, at("alpha_pattern")),
                                         float(room::finite(alpha, at("alpha_pattern") + ": " + key)));
    const bool by_expression = given("target_modules") && given("target_modules")->is_string();
    if (const Json* v = given("target_modules"); by_expression) room::expression(v->string(), at("target_modules"));
    else if (v) for (const Json& key : v->as_array(at("target_modules"))) key.as_string(at("target_modules"));
    for (const char* key : {"layers_to_transform", "layers_pattern"})
        if (by_expression && given(key))
            fail(Errc::format, at(key), " cannot be used where target_modules is a string: PEFT refuses it too");
    if (const Json* v = given("exclude_modules"); v && v->is_string())
        o.exclude_pattern = room::expression(v->string(), at("exclude_modules"));
    else
        for (const Json& key : list("exclude_modules", false))
            o.exclude.push_back(key.as_string(at("exclude_modules")));
    for (const Json& layer : list("layers_to_transform", true))
        o.layers.push_back(layer.as_int(at("layers_to_transform")));
    for (const Json& key : list("layers_pattern", true))
        if (const std::string& k = key.as_string(at("layers_pattern")); k != layers && !k.empty())
            fail(Errc::unsupported, at("layers_pattern"), " = ", k, " is not supported, only ", layers);
    room::check_alphas(o, where);
    if (const Json* v = j.find("init_lora_weights")) o.init = room::read_init(*v, at("init_lora_weights"));
    return o;
}

}}  // namespace qlora
