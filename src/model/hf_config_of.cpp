// hf_config_of.cpp - a configuration as config.json. GGUF keeps rotary scaling as parameters (linear, yarn) or as one
// divisor a frequency (llama3); the parameters written are those that give back the very frequencies, and if none do,
// that is an error.
#include "src/base/number.h"
#include "src/model/hf_model.h"
#include "src/model/recommended.h"

#include "src/format/gguf.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

Json shortest(float v) {
    char text[64];
    const auto end = std::to_chars(text, text + sizeof text, v).ptr;
    double d = 0;
    parse_double(text, end, d);
    return Json(d);
}

namespace hf_config_of_room {

// Version 4 of transformers takes these three fields and no other, where the ratio of the contexts gives the magnitude.
Json long_rope(const Config& c) {
    const auto list = [](const std::vector<float>& factors) {
        Json::Array out;
        for (const float f : factors) out.push_back(shortest(f));
        return Json(std::move(out));
    };
    Json j;
    j.set("type", "longrope")
        .set("short_factor", list(c.rope_scaling.short_factors))
        .set("long_factor", list(c.rope_scaling.long_factors));
    Config told = c;
    RopeScaling s = c.rope_scaling;
    s.attention_factor = 0;
    s.factor = double(c.context) / s.original_context;
    set_frequencies(told, double(c.rope_theta), s, "save");
    const bool same = std::fabs(told.rope_magnitude - c.rope_magnitude) <= 1e-6f;
    if (!same) j.set("attention_factor", shortest(c.rope_magnitude));
    return j;
}

// As the source says it; where that was one divisor a frequency, the parameters of llama3 that made them.
Json rope_scaling(const ModelImpl& model) {
    using Kind = RopeScaling::Kind;
    const Config& c = model.config;
    RopeScaling s = c.rope_scaling;
    if (s.kind == Kind::yarn && !gives_frequencies(c, s)) s.truncate = !s.truncate;    // which GGUF has no key for
    if (!gives_frequencies(c, s)) {
        Config plain = c;
        set_frequencies(plain, double(c.rope_theta), {}, "save");
        s = {};
        s.kind = Kind::llama3;
        s.factor = 0;                                  // the largest divisor: that of the slowest frequencies
        for (size_t i = 0; i < c.inverse_frequencies.size(); ++i)
            s.factor = std::max(s.factor, double(plain.inverse_frequencies[i]) / double(c.inverse_frequencies[i]));
        s.factor = std::round(s.factor * 1e4) / 1e4;
        s.original_context = 8192;                     // of every Llama 3 there is
        if (!gives_frequencies(c, s))
            fail(Errc::unsupported, "save: the rotary frequencies of ", model.path,
                 " cannot be written to a config.json; save a GGUF file, or load the original Hugging Face folder");
    }
    if (s.kind == Kind::none) return {};
    Json j;
    if (s.kind == Kind::longrope) return long_rope(c);
    j.set("rope_type", s.kind == Kind::linear ? "linear"
                       : s.kind == Kind::yarn ? "yarn"
                                              : "llama3")
        .set("factor", s.factor);
    if (s.kind == Kind::llama3) j.set("low_freq_factor", s.low).set("high_freq_factor", s.high);
    if (s.kind != Kind::linear) j.set("original_max_position_embeddings", int64_t(s.original_context));
    if (s.kind == Kind::yarn)
        j.set("attention_factor", shortest(c.rope_magnitude))
            .set("beta_fast", s.beta_fast)
            .set("beta_slow", s.beta_slow);
    if (!s.truncate) j.set("truncate", false);
    return j;
}

// As version 5 of transformers says it of the layers of either kind: j has what version 4 says, which is of all keys.
Json by_kind(const Config& c, const Json& j) {
    Json full{Json::Object()}, sliding, out;
    if (const Json& scaling = *j.find("rope_scaling"); scaling.is_null()) full.set("rope_type", "default");
    else for (const auto& [key, value] : scaling.object()) (key == "truncate" ? out : full).set(key, value);
    full.set("rope_theta", *j.find("rope_theta"));
    sliding.set("rope_type", "default").set("rope_theta", shortest(c.sliding_theta > 0 ? c.sliding_theta
                                                                                       : c.rope_theta));
    out.set("full_attention", std::move(full)).set("sliding_attention", std::move(sliding));
    return out;
}

// A class has the biases it has by definition, and may have a switch for those of all projections of attention, and one
// for the feed-forward.
void check_biases(const ModelImpl& model, const Family& family) {
    const Config& c = model.config;
    const auto &biases = c.biases, own = family.start().biases;
    if (family.use_bias) {
        for (int m = 0; m < module_count; ++m)
            if (has(c, Module(m)) && biases[size_t(m)] != biases[size_t(Module::q_proj)])
                fail(Errc::unsupported, "save: ", model.path, ": ", family.hf_class,
                     " has biases on all linear layers or on none");
        return;
    }
    const auto check = [&](Module first, Module last, bool with_switch, const char* where) {
        int64_t some = 0, all = 0;
        bool by_class = true;
        for (int m = int(first); m <= int(last); ++m) {
            if (!has(c, Module(m))) continue;
            ++all;
            some += biases[size_t(m)] ? 1 : 0;
            by_class = by_class && biases[size_t(m)] == own[size_t(m)];
        }
        if (!by_class && !(with_switch && some == all))
            fail(Errc::unsupported, "save: ", model.path, ": ", family.hf_class, " cannot have biases on ", some,
                 " of the ", all, " layers of ", where);
    };
    check(Module::q_proj, Module::o_proj, family.attention_bias, "attention");
    check(Module::gate_proj, Module::down_proj, family.mlp_bias, "the feed-forward");
}

}  // namespace hf_config_of_room

Json hf_config_of(const ModelImpl& model) {
    namespace room = hf_config_of_room;
    const Config& c = model.config;
    const Family* named = family_named(c.family);
    const Family& family = c.window && !named->windowed.empty() ? *family_named(named->windowed) : *named;
    if (c.rotated != c.head_dim && !family.partial_rotation)
        fail(Errc::unsupported, "save: ", model.path, " rotates ", c.rotated, " of ", c.head_dim,
             " dimensions of a head, which a config.json of ", family.hf_class, " cannot say");
    Json j;
    j.set("architectures", Json(Json::Array{Json(family.hf_class)})).set("model_type", Json(family.name));
    j.set("vocab_size", c.vocabulary)
        .set("hidden_size", c.hidden)
        .set("intermediate_size", c.feed_forward)
        .set("num_hidden_layers", c.layers);
    j.set("num_attention_heads", c.heads).set("max_position_embeddings", c.context);
    if (family.defaults.kv_heads >= 0) j.set("num_key_value_heads", c.kv_heads).set("head_dim", c.head_dim);
    if (c.rotated != c.head_dim) j.set("partial_rotary_factor", double(c.rotated) / double(c.head_dim));
    if (!c.sliding.empty() || family.start().full_every) {
        Json::Array types;
        for (int64_t i = 0; i < c.layers; ++i)
            types.push_back(Json(c.slides(i) ? "sliding_attention" : "full_attention"));
        j.set("layer_types", Json(std::move(types)));
    }
    if (!family.eps_key.empty()) j.set(std::string(family.eps_key), shortest(c.eps));
    else if (c.eps != float(family.defaults.eps))
        fail(Errc::unsupported, "save: ", model.path, " has norms with an epsilon of ", c.eps, ", ", family.hf_class,
             " knows ", family.defaults.eps, " only");
    if (family.use_bias) j.set("use_bias", c.biases[size_t(Module::q_proj)]);
    if (!c.kv_heads_of.empty()) {
        Json::Array list;
        for (const int64_t n : c.kv_heads_of) list.push_back(Json(n));
        j.set("num_key_value_heads_per_layer", Json(std::move(list)));
    }
    if (!c.learned_positions)
        j.set("rope_theta", shortest(c.rope_theta)).set("rope_scaling", room::rope_scaling(model));
    if (c.window && (family.plain_sliding || c.sliding_theta > 0)) j.set("rope_parameters", room::by_kind(c, j));
    if (c.rope_scaling.kind == RopeScaling::Kind::longrope)
        j.set("original_max_position_embeddings", int64_t(c.rope_scaling.original_context));
    j.set("tie_word_embeddings", c.tied)
        .set(std::string(family.activation_key), activation_name(c.activation))
        .set("attention_dropout", 0.0);
    room::check_biases(model, family);
    if (family.attention_bias) j.set("attention_bias", c.biases[size_t(Module::o_proj)]);
    if (family.mlp_bias) j.set("mlp_bias", c.biases[size_t(Module::down_proj)]);
    if (family.write_hf) family.write_hf(c, j);
    if (!c.turned.empty() && !j.find("no_rope_layers") && !j.find("position_embedding_type"))
        fail(Errc::unsupported, "save: ", model.path, " has layers that do not turn, which a config.json of ",
             family.hf_class, " cannot say");
    for (Json::Member& member : j.object())
        for (const Alias& a : family.aliases)
            if (member.first == a.key) member.first = a.there;
    const Json ends = hf_generation_config(model);
    for (const char* key : {"bos_token_id", "eos_token_id"})
        if (const Json* v = ends.find(key)) j.set(key, *v);
    return j;
}

Json hf_generation_config(const ModelImpl& model) {
    Json j{Json::Object{}};
    write_recommended(model, j);
    if (!model.tokenizer) return j;
    if (model.tokenizer->bos >= 0) j.set("bos_token_id", int64_t(model.tokenizer->bos));
    Json::Array ends;
    for (const Token t : model.tokenizer->end_of_reply) ends.push_back(Json(int64_t(t)));
    if (ends.size() == 1) j.set("eos_token_id", ends[0]);
    else if (!ends.empty()) j.set("eos_token_id", Json(std::move(ends)));
    return j;
}

}}  // namespace qlora
