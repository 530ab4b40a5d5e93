// hf_config.cpp - config.json of Hugging Face folders, as versions 4 and 5 of transformers write it, to a Config.
// Fields that would change what the model computes and that we do not implement are errors; what the file leaves out
// has the default of its class.
#include "src/model/family.h"
#include "src/model/hf_model.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

namespace hf_config_room {

std::vector<float> factors(const HfFields& f, std::string_view key) {
    std::vector<float> out;
    const Json* list = f.find(key);
    if (!list) fail(Errc::format, f.at(key), " is missing");
    for (const Json& v : list->as_array(f.at(key))) out.push_back(float(v.as_number(f.at(key))));
    return out;
}

// Version 4: rope_theta and rope_scaling {type or rope_type, ...}. Version 5: rope_parameters {rope_theta, rope_type,
// ...}, or one such object for each kind of layer.
void set_rope(Config& c, const HfFields& f, const Family& family) {
    const std::string_view of_class = family.rope_parameters;
    const Json by_class = of_class.empty() ? Json() : Json::parse(of_class, "the defaults of the class");
    const Json *v5 = f.find("rope_parameters"), *v4 = f.find("rope_scaling");
    const Json* found = v5 ? v5 : v4 ? v4 : &by_class;
    std::string place = f.at(v5 ? "rope_parameters" : "rope_scaling");
    if (!found->is_null()) found->as_object(place);
    double sliding = double(c.sliding_theta);          // a family may have read it
    if (const Json* s = found->find("sliding_attention"); s && s->is_object()) {
        const HfFields own{*s, place};
        const std::string kind = own.text("rope_type", "default");
        if (kind != "default")
            fail(Errc::unsupported, place, ": rotary scaling \"", kind, "\" of layers that slide is not supported");
        sliding = own.number("rope_theta", sliding > 0 ? sliding : family.defaults.theta);
    }
    std::optional<bool> truncate;                      // transformers looks for it beside the objects of two kinds
    if (const Json* all = found->find("full_attention"); all && all->is_object()) {
        truncate = HfFields{*found, place}.boolean("truncate", true);
        found = all;
        place += ".full_attention";
        if (HfFields{*all, place}.boolean("truncate", *truncate) != *truncate)
            fail(Errc::unsupported, place, ": truncate is another than beside full_attention, where transformers "
                 "takes it from (true where it is missing); write it there, once for all layers");
    }
    const Json& rope = *found;
    const HfFields r{rope, place};
    const std::string kind = r.text("rope_type", r.text("type", "default"));
    const double theta = r.number("rope_theta", f.number("rope_theta", family.defaults.theta));
    RopeScaling s;
    const bool scales = kind == "linear" || kind == "llama3" || kind == "yarn", llama3 = kind == "llama3";
    const bool longrope = kind == "longrope" || kind == "su";          // the first files said su
    const double context = longrope ? f.number("original_max_position_embeddings", double(c.context))
                                    : double(c.context);
    s.original_context = llama3 ? r.needed("original_max_position_embeddings")
                                : r.number("original_max_position_embeddings", context);
    if (!(s.original_context >= 1 && s.original_context <= 2147483648.0))
        fail(Errc::format, r.at("original_max_position_embeddings"), " is ", s.original_context,
             ", expected a number of tokens");
    const Json* factor = rope.find("factor");          // a null of yarn: the ratio of the two contexts
    if (kind == "yarn" && factor && factor->is_null()) s.factor = double(c.context) / s.original_context;
    else if (scales) s.factor = r.needed("factor");
    if (kind == "linear") s.kind = RopeScaling::Kind::linear;
    else if (kind == "llama3") s.kind = RopeScaling::Kind::llama3;
    else if (kind == "yarn") s.kind = RopeScaling::Kind::yarn;
    else if (longrope) {
        s.kind = RopeScaling::Kind::longrope;
        s.factor = r.number("factor", double(c.context) / s.original_context);
        s.short_factors = factors(r, "short_factor");
        s.long_factors = factors(r, "long_factor");
    } else if (kind == "dynamic") {                      // changes nothing up to this length
        c.context = std::min<int64_t>(c.context, int64_t(s.original_context));
        c.dynamic_rope = true;
    } else if (kind != "default")
        fail(Errc::unsupported, r.at("rope_type"), ": rotary scaling \"", kind,
             "\" is not supported (default, linear, llama3, yarn, longrope and dynamic are)");
    s.low = llama3 ? r.needed("low_freq_factor") : 1;
    s.high = llama3 ? r.needed("high_freq_factor") : 4;
    s.beta_fast = r.number("beta_fast", 32);
    s.beta_slow = r.number("beta_slow", 1);
    s.attention_factor = r.number("attention_factor", 0);
    if (r.find("attention_factor") && !(s.attention_factor > 0))
        fail(Errc::format, r.at("attention_factor"), " is ", s.attention_factor, ", expected a number above 0");
    // two factors of ln(factor), whose ratio is the attention factor
    const double some = r.number("mscale", 0), all_dim = r.number("mscale_all_dim", 0);
    for (const auto& [key, value] : {std::pair{"mscale", some}, std::pair{"mscale_all_dim", all_dim}})
        if (!(value >= 0 && value <= 1000)) fail(Errc::format, r.at(key), " is ", value, ", expected 0 to 1000");
    if (kind == "yarn" && s.attention_factor == 0 && some > 0 && all_dim > 0 && s.factor > 1)
        s.attention_factor = (0.1 * some * std::log(s.factor) + 1) / (0.1 * all_dim * std::log(s.factor) + 1);
    s.truncate = truncate.value_or(r.boolean("truncate", true));
    set_frequencies(c, theta, s, place);
    if (sliding <= 0 && family.plain_sliding) sliding = theta;
    c.sliding_theta = 0;
    if (sliding > 0 && c.window > 0) set_sliding_frequencies(c, sliding, place);
}

std::vector<int64_t> by_layer(const HfFields& f, std::string_view key) {
    std::vector<int64_t> out;
    if (const Json* list = f.find(key))
        for (const Json& v : list->as_array(f.at(key))) out.push_back(v.as_int(f.at(key)));
    return out;
}

// Which layers slide: what layer_types says goes, whatever rule the family's own fields gave.
void set_layer_types(Config& c, const HfFields& f) {
    const Json* types = f.find("layer_types");
    if (!types) return set_sliding(c, c.sliding);
    const Json::Array& list = types->as_array(f.at("layer_types"));
    if (int64_t(list.size()) != c.layers)
        fail(Errc::format, f.where, ": layer_types has ", list.size(), " entries for ", c.layers, " layers");
    std::vector<uint8_t> sliding;
    for (int64_t i = 0; i < c.layers; ++i) {
        const std::string& type = list[size_t(i)].as_string(f.at("layer_types"));
        if (type != "sliding_attention" && type != "full_attention" && type != "attention")
            fail(Errc::unsupported, f.where, ": layer_types[", i, "] = ", type,
                 " is not supported (sliding_attention and full_attention are)");
        sliding.push_back(type == "sliding_attention");
    }
    const bool any = std::find(sliding.begin(), sliding.end(), 1) != sliding.end();
    if (any && c.window == 0)
        fail(Errc::format, f.where, ": layer_types has layers that slide, but there is no sliding_window");
    set_sliding(c, std::move(sliding));
}

void set_biases(Config& c, const HfFields& f, const Family& family) {
    const bool all = family.use_bias && f.boolean("use_bias", true);
    const bool attention = all || f.boolean("attention_bias", false), mlp = all || f.boolean("mlp_bias", false);
    for (int m = 0; m < module_count; ++m)
        if (has(c, Module(m)) && (m <= int(Module::o_proj) ? attention : mlp)) c.biases[size_t(m)] = true;
}

void set_activation(Config& c, const HfFields& f, const Family& family) {
    const std::string name = f.text(family.activation_key, activation_name(c.activation));
    const std::optional<Activation> known = activation_named(name);
    if (!known)
        fail(Errc::unsupported, f.where, ": ", family.activation_key, " \"", name,
             "\" is not supported (silu, gelu and gelu_pytorch_tanh are)");
    c.activation = *known;
}

}  // namespace hf_config_room

Config hf_config(const Json& json, const std::string& where, const Family* as) {
    if (!json.is_object()) fail(Errc::format, where, " must hold an object");
    const std::string type = HfFields{json, where}.text("model_type", "");
    std::optional<std::string> hf_class;
    if (const Json* classes = HfFields{json, where}.find("architectures"))
        if (const Json::Array& list = classes->as_array(where + ": architectures"); !list.empty())
            hf_class = list[0].as_string(where + ": architectures");
    const Family* family = as ? as : family_of_hf(type, hf_class.value_or(""));
    if (!family)
        fail(Errc::unsupported, where, ": model_type \"", type,
             "\" is not supported; supported families: ", family_names());
    const HfFields f{json, where, family->aliases};
    if (hf_class && (hf_class->empty() || (*hf_class != family->hf_class && *hf_class != family->other_class)))
        fail(Errc::unsupported, where, ": the class ", *hf_class, " is not supported, expected ", family->hf_class);
    const Family::Defaults& defaults = family->defaults;
    Config c = family->start();
    hf_config_room::set_activation(c, f, *family);
    c.vocabulary = f.integer("vocab_size", defaults.vocabulary);
    c.hidden = f.integer("hidden_size", defaults.hidden);
    c.layers = f.integer("num_hidden_layers", defaults.layers);
    c.heads = f.integer("num_attention_heads", defaults.heads);
    // A null here means as many as heads; a missing key means the default of the class, where that has the field.
    const Json* kv = f.any("num_key_value_heads");
    const int64_t by_class = defaults.kv_heads > 0 ? defaults.kv_heads : c.heads;
    const bool heads = defaults.kv_heads < 0 || (kv && kv->is_null());
    c.kv_heads = heads ? c.heads : f.integer("num_key_value_heads", by_class);
    c.context = f.integer("max_position_embeddings", defaults.context);
    if (c.heads < 1) fail(Errc::format, where, ": num_attention_heads is ", c.heads);
    if (c.hidden < 1 || c.hidden > (1 << 20))
        fail(Errc::format, where, ": hidden_size is ", c.hidden, ", expected 1 to ", 1 << 20);
    c.feed_forward = f.integer("intermediate_size", defaults.feed_forward ? defaults.feed_forward : 4 * c.hidden);
    if (!f.find("head_dim") && !defaults.head_dim && c.hidden % c.heads)
        fail(Errc::format, where, ": hidden_size ", c.hidden, " is not a multiple of num_attention_heads ", c.heads);
    c.head_dim = f.integer("head_dim", defaults.head_dim ? defaults.head_dim : c.hidden / c.heads);
    c.eps = float(family->eps_key.empty() ? defaults.eps : f.number(family->eps_key, defaults.eps));
    c.tied = f.boolean("tie_word_embeddings", defaults.tied);
    hf_config_room::set_biases(c, f, *family);
    static const Json none{Json::Object{}};
    const Json* rope = f.find("rope_parameters");      // which version 5 moved it into
    const HfFields r{rope && rope->is_object() ? *rope : none, where, family->aliases};
    const double part = r.number("partial_rotary_factor", f.number("partial_rotary_factor", defaults.rotated));
    if (part <= 0 || part > 1)
        fail(Errc::format, where, ": partial_rotary_factor is ", part, ", expected a number in (0, 1]");
    if (c.head_dim < 1 || c.head_dim > (1 << 14))
        fail(Errc::format, where, ": head_dim (the head size) is ", c.head_dim, ", expected 1 to ", 1 << 14);
    c.rotated = int64_t(double(c.head_dim) * part);
    if (c.layers < 0 || c.layers > 4096)
        fail(Errc::format, where, ": num_hidden_layers is ", c.layers, ", expected 1 to 4096");
    check_config(c, where);
    if (family->kv_heads_by_layer) c.kv_heads_of = hf_config_room::by_layer(f, "num_key_value_heads_per_layer");
    set_kv_heads(c, where);
    if (family->read_hf) family->read_hf(c, f, *family);
    if (c.window < 0 || c.window > (int64_t(1) << 31)) refuse_window(c, f);
    hf_config_room::set_layer_types(c, f);
    hf_config_room::set_rope(c, f, *family);
    return c;
}

}}  // namespace qlora
