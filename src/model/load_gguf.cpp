// load_gguf.cpp - a model out of a GGUF file. Every tensor is compared with the configuration before anybody computes
// with it.
#include "src/base/access.h"
#include "src/model/family.h"
#include "src/model/gguf_model.h"
#include "src/model/vocabulary.h"
#include "src/tensor/float8.h"
#include "src/text/tokenizer_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {

namespace load_gguf_room {

struct Source : GgufFields {
    const GgufTensor* find(const std::string& name) const { return file.tensor(name); }
    Weight tensor(const std::string& name, const Shape& shape, bool view = false) const;
    RowsInFile place(const Config& c, const Row& row, int64_t layer) const {
        return rows_in_file(World::gguf, c, row, layer, [&](const std::string& name) { return find(name); });
    }
};

Weight Source::tensor(const std::string& name, const Shape& shape, bool view) const {
    const GgufTensor* t = find(name);
    if (!t) fail(Errc::format, "gguf: ", where, ": the tensor ", name, " is missing");
    Weight w = view ? file.view(*t) : file.weight(*t);
    check_shape(w, shape, "gguf: " + where);
    return w;
}

RopeScaling scaling(const Source& s) {
    RopeScaling r;
    const std::string kind = s.file.string(s.key("rope.scaling.type"), "");
    const double legacy = s.number("rope.scale_linear", 1);
    r.factor = s.number("rope.scaling.factor", legacy);
    r.original_context = s.file.number(s.key("rope.scaling.original_context_length"),
                                       double(s.file.integer(s.key("context_length"))));
    if (kind == "linear" || (kind.empty() && r.factor != 1)) r.kind = RopeScaling::Kind::linear;
    else if (kind == "yarn") r.kind = RopeScaling::Kind::yarn;
    else if (!kind.empty() && kind != "none")
        fail(Errc::unsupported, "gguf: ", s.where, ": rope.scaling.type \"", kind,
             "\" is not supported (none, linear and yarn are)");
    const auto attention = [&](const char* name) {
        const double factor = s.number(name, 1);
        if (factor < 1e-3 || factor > 1e3)
            fail(Errc::format, "gguf: ", s.where, ": ", s.key(name), " is ", factor, ", expected 0.001 to 1000");
        return factor;
    };
    r.attention_factor = attention("rope.scaling.attn_factor");
    if (r.kind == RopeScaling::Kind::yarn) {
        // Converters put the model's own factor in yarn_attn_factor where it says one.
        const double stretched = std::log(std::max(r.factor, 1.0)),
                     all_dim = s.number("rope.scaling.yarn_log_multiplier", 0);
        if (!(all_dim >= 0 && all_dim <= 1000))
            fail(Errc::format, "gguf: ", s.where, ": ", s.key("rope.scaling.yarn_log_multiplier"), " is ", all_dim,
                 ", expected 0 to 1000");
        r.attention_factor *= s.file.pair(s.key("rope.scaling.yarn_attn_factor"))
                                  ? attention("rope.scaling.yarn_attn_factor")
                                  : (0.1 * stretched + 1) / (0.1 * all_dim * stretched + 1);
        r.beta_fast = s.number("rope.scaling.yarn_beta_fast", 32);
        r.beta_slow = s.number("rope.scaling.yarn_beta_slow", 1);
    }
    return r;
}

// A switch for each layer, where the writer had to spell it out.
std::vector<uint8_t> by_layer(const Source& s, const std::string& key, int64_t layers, std::vector<uint8_t> fallback) {
    const std::vector<int64_t> list = s.file.integers(key);
    if (list.empty()) return fallback;
    if (int64_t(list.size()) != layers)
        fail(Errc::format, "gguf: ", s.where, ": ", key, " has ", list.size(), " entries for ", layers, " layers");
    std::vector<uint8_t> out;
    for (const int64_t v : list) out.push_back(v != 0);
    return out;
}

// attention.sliding_window_pattern: a switch for each layer, or every how many layers one sees all keys.
std::vector<uint8_t> pattern(const Source& s, Config& c) {
    const std::string key = s.key("attention.sliding_window_pattern");
    const GgufPair* pair = s.file.pair(key);
    if (!pair) return {};
    if (GgufWriter::Type(pair->type) == GgufWriter::Type::array) return by_layer(s, key, c.layers, {});
    c.full_every = s.file.integer(key);
    if (c.full_every < 0) fail(Errc::format, "gguf: ", s.where, ": ", key, " is ", c.full_every);
    return {};
}

Config config(const Source& s, const Family& family) {
    Config c = family.start();
    c.layers = s.integer("block_count", -1);
    c.hidden = s.integer("embedding_length", -1);
    c.heads = s.integer("attention.head_count", -1);
    c.kv_heads_of = s.file.integers(s.key("attention.head_count_kv"));
    c.kv_heads = c.kv_heads_of.empty() ? c.heads : c.kv_heads_of[0];
    if (!family.kv_heads_by_layer) c.kv_heads = s.integer("attention.head_count_kv", c.heads);
    c.feed_forward = s.integer("feed_forward_length", -1);
    c.context = s.integer("context_length", -1);
    if (c.heads < 1) fail(Errc::format, "gguf: ", s.where, ": ", s.key("attention.head_count"), " is ", c.heads);
    c.head_dim = s.integer("attention.key_length", c.hidden / c.heads);
    if (s.integer("attention.value_length", c.head_dim) != c.head_dim)
        fail(Errc::unsupported, "gguf: ", s.where, ": keys and values of different sizes are not supported");
    if (s.integer("expert_count", 0) != 0)
        fail(Errc::unsupported, "gguf: ", s.where, ": mixtures of experts are not supported");
    c.rotated = s.integer("rope.dimension_count", c.head_dim);
    c.adjacent_pairs = s.file.boolean("qlora.adjacent_pairs", family.adjacent_pairs);
    c.eps = float(s.number(eps_key(c), 1e-5));
    const std::string activation = s.file.string("qlora.activation", activation_name(c.activation));
    if (const std::optional<Activation> known = activation_named(activation)) c.activation = *known;
    else fail(Errc::unsupported, "gguf: ", s.where, ": qlora.activation \"", activation, "\" is not supported");
    if (family.read_gguf) family.read_gguf(c, s);
    c.window_from_layer = s.file.integer("qlora.window_from_layer", 0);
    if (family.gguf_pattern && c.window > 0) c.sliding = pattern(s, c);
    if (c.window > 0) set_sliding(c, by_layer(s, "qlora.sliding", c.layers, c.sliding));
    c.turned = by_layer(s, "qlora.turned", c.layers, c.turned);
    const GgufTensor* table = s.find("token_embd.weight");
    if (!table || table->shape.size() != 2)
        fail(Errc::format, "gguf: ", s.where,
             ": the tensor token_embd.weight is missing or not a matrix: this file holds no model");
    c.vocabulary = table->shape[0];
    if (s.integer("vocab_size", c.vocabulary) != c.vocabulary)
        fail(Errc::format, "gguf: ", s.where, ": ", s.key("vocab_size"), " is ", s.integer("vocab_size", 0),
             ", token_embd.weight has ", c.vocabulary, " rows");
    c.tied = !s.find("output.weight");
    check_config(c, "gguf: " + s.where);
    set_kv_heads(c, "gguf: " + s.where);
    for (int m = 0; m < module_count; ++m)
        if (s.find(s.place(c, row_of(c, bias_of(Module(m))), 0).name)) c.biases[size_t(m)] = true;
    RopeScaling rope = scaling(s);
    if (s.find("rope_factors_long.weight") || s.find("rope_factors_short.weight")) {
        rope.kind = RopeScaling::Kind::longrope;
        rope.factor = double(c.context) / rope.original_context;
        rope.long_factors = s.tensor("rope_factors_long.weight", {c.rotated / 2}).decoded();
        rope.short_factors = s.tensor("rope_factors_short.weight", {c.rotated / 2}).decoded();
    }
    set_frequencies(c, s.number("rope.freq_base", 10000), rope, "gguf: " + s.where);
    // a family may have a default
    double sliding = s.number("rope.freq_base_swa", double(c.sliding_theta));
    if (sliding <= 0 && family.plain_sliding) sliding = double(c.rope_theta);
    c.sliding_theta = 0;
    if (sliding > 0 && c.window > 0) set_sliding_frequencies(c, sliding, "gguf: " + s.where);
    if (s.find("rope_freqs.weight")) {                 // Llama 3.1 and later: a divisor for each frequency
        const std::vector<float> factors = s.tensor("rope_freqs.weight", {c.rotated / 2}).decoded();
        for (size_t i = 0; i < factors.size(); ++i) c.inverse_frequencies[i] /= factors[i];
        check_frequencies(c.inverse_frequencies, "gguf: " + s.where + ": rope_freqs.weight");
    }
    if (const std::vector<float> exact = s.file.floats("qlora.inverse_frequencies"); !exact.empty()) {
        if (exact.size() != c.inverse_frequencies.size())
            fail(Errc::format, "gguf: ", s.where, ": qlora.inverse_frequencies has ", exact.size(),
                 " entries, expected ", c.inverse_frequencies.size());
        check_frequencies(exact, "gguf: " + s.where + ": qlora.inverse_frequencies");
        c.inverse_frequencies = exact;
    }
    if (const double exact = s.file.number("qlora.rope_magnitude", 0); exact != 0) {
        if (!(std::fabs(exact / double(c.rope_magnitude) - 1) < 1e-5))
            fail(Errc::format, "gguf: ", s.where, ": qlora.rope_magnitude is ", exact, ", the other keys say ",
                 c.rope_magnitude);
        c.rope_magnitude = float(exact);
    }
    return c;
}

constexpr int ggml_nvfp4 = 40;

// Of a tensor in nvfp4 whose scale is one number more: blk.0.attn_q.scale beside blk.0.attn_q.weight.
Weight scaled(const Source& s, Weight w) {
    const GgufTensor* t = w.dtype == DType::nvfp4 ? s.find(gguf_scale_name(w.name)) : nullptr;
    if (!t) return w;
    const std::string what = str("gguf: ", s.where, ": tensor ", t->name);
    if (t->ggml_type != 0 || t->shape != Shape{1})
        fail(Errc::format, what, " has type ", t->ggml_type, " and shape ", t->shape, ", expected one f32");
    const float scale = s.file.weight(*t).decoded()[0];
    struct Kept { std::shared_ptr<const void> file; std::vector<float> scales; };
    const auto kept = std::make_shared<Kept>(Kept{w.owner, nvfp4_scales(scale, false, what)});
    w.quant.absmax_map = kept->scales.data();
    w.owner = kept;
    return w;
}

Weight whole(const Source& s, const Row& row, const std::string& name, const Shape& shape) {
    const GgufTensor* t = s.find(name);
    if (row.kind != Kind::linear || !t || t->ggml_type != ggml_i8 || !s.file.pair("qlora.type"))
        return scaled(s, s.tensor(name, shape, row.kind == Kind::linear));
    Weight w = read_four_bit(s.file, name);
    check_shape(w, shape, "gguf: " + s.where);
    return w;
}

Stored read(const Source& s, const Config& c, const Row& row, int64_t layer, FusedTensor& cut) {
    const RowsInFile at = s.place(c, row, layer);
    const auto all = [&] { return Stored{std::make_shared<const Weight>(whole(s, row, at.name, at.shape))}; };
    return at.fused ? cut.rows(at, all) : all();
}

// The tensor in nvfp4 that such a name is a scale of, else the name.
std::string owner_of(const Source& s, const std::string& name) {
    for (const std::string_view suffix : {".scale", ".input_scale"}) {
        if (!name.ends_with(suffix)) continue;
        const std::string weight = name.substr(0, name.size() - suffix.size()) + ".weight";
        if (const GgufTensor* t = s.find(weight); t && t->ggml_type == ggml_nvfp4) return weight;
    }
    return name;
}

// A tensor that no part of the model took would silently change what the model computes.
void refuse_leftovers(ModelImpl& model, const Source& s) {
    const Config& c = model.config;
    bool activations = false;
    for (const GgufTensor& t : s.file.tensors()) {
        const std::string name = owner_of(s, t.name);
        activations = activations || (name != t.name && t.name.ends_with(".input_scale"));
        const TensorPlace place = place_of(World::gguf, c, name, "gguf: " + s.where);
        const bool by_length = !c.long_frequencies.empty() &&
                               (t.name == "rope_factors_long.weight" || t.name == "rope_factors_short.weight");
        const bool frequencies = by_length || t.name == "rope_freqs.weight" || place.in_layer == "rope_freqs.weight" ||
                                 place.in_layer == "attn_rot_embd.weight";
        const bool taken = place.row && place.row->exists(c, place.layer) &&
                           (place.part.empty() || place.row->kind == Kind::linear) &&
                           s.place(c, *place.row, place.layer).name ==
                               name.substr(0, name.size() - place.part.size());
        if (!taken && !frequencies)
            fail(Errc::unsupported, "gguf: ", s.where, ": the tensor ", t.name, " is not part of a ", c.family,
                 " model as this library knows it");
    }
    if (activations)
        model.notes.push_back(s.where + " has scales to round activations with (input_scale), which are not used: only "
                                        "its weights are in few bits here");
}

std::shared_ptr<const Metadata> metadata_of(const Source& source, const Config& c) {
    const Gguf& file = source.file;
    auto out = std::make_shared<Metadata>();
    out->gguf = file.copy();
    if (const GgufTensor* t = file.tensor("rope_freqs.weight"))
        out->rope_freqs = std::make_shared<const Weight>(file.weight(*t));
    if (const GgufTensor* t = file.tensor(source.place(c, row_of(c, Slot::q_proj), 0).name))
        out->stored_type = t->ggml_type;
    return out;
}

}  // namespace load_gguf_room

namespace load_gguf_room {

// "t5": the rules are SentencePiece's, but for the bytes that characters do not become.
void read_unigram(const GgufPairs& file, Vocabulary& v) {
    if (v.scores.empty() || v.types.empty())
        fail(Errc::format, "gguf: ", file.path(),
             ": a vocabulary of kind t5 without tokenizer.ggml.scores or token_type");
    v.pieces = int64_t(v.tokens.size());
    v.byte_fallback = false;
    v.remove_extra_spaces = file.boolean("tokenizer.ggml.remove_extra_whitespaces", false);
    v.add_eos = file.boolean("tokenizer.ggml.add_eos_token", true);
    for (const int64_t byte : file.integers("tokenizer.ggml.precompiled_charsmap")) v.charsmap += char(uint8_t(byte));
}

}  // namespace load_gguf_room

Vocabulary gguf_vocabulary(const GgufPairs& file) {
    Vocabulary v;
    const std::string kind = file.string("tokenizer.ggml.model", "none");
    if (kind == "llama") v.kind = Vocabulary::Kind::spm;
    else if (kind == "gpt2") v.kind = Vocabulary::Kind::byte_bpe;
    else if (kind == "t5") v.kind = Vocabulary::Kind::unigram;
    else
        fail(Errc::unsupported, "gguf: ", file.path(), ": tokenizer.ggml.model \"", kind,
             "\" is not supported (llama, gpt2 and t5 are)");
    const bool spm = v.kind == Vocabulary::Kind::spm, bpe = v.kind == Vocabulary::Kind::byte_bpe;
    v.pre = file.string("tokenizer.ggml.pre", "default");
    v.tokens = file.strings("tokenizer.ggml.tokens");
    v.scores = file.floats("tokenizer.ggml.scores");
    v.merges = file.strings("tokenizer.ggml.merges");
    if (v.tokens.empty()) fail(Errc::format, "gguf: ", file.path(), ": tokenizer.ggml.tokens is missing or empty");
    if (bpe && v.merges.empty())
        fail(Errc::format, "gguf: ", file.path(),
             ": tokenizer.ggml.merges is missing or empty, without which a vocabulary of kind gpt2 gives single bytes; "
             "convert the model again");
    for (int64_t t : file.integers("tokenizer.ggml.token_type")) {
        if (t < 1 || t > 6)
            fail(Errc::format, "gguf: ", file.path(), ": tokenizer.ggml.token_type holds ", t, ", expected 1 to 6");
        v.types.push_back(Vocabulary::Type(t));
    }
    const auto missing = [&](const char* key, const char* instead) {
        if (!file.pair(std::string("tokenizer.ggml.") + key))
            v.notes.push_back(str(file.path(), " has no tokenizer.ggml.", key, ": ", instead));
    };
    if (bpe) missing("pre", "text is cut into words as \"default\" does, which may not be how the model was trained");
    if (spm) missing("scores", "all merges count the same, which is hardly how the model was trained");
    missing("token_type", "only tokens known by name (<|im_end|>, ...) count as control tokens");
    for (const auto& [name, size] : {std::pair{"token_type", v.types.size()}, std::pair{"scores", v.scores.size()}})
        if (size && size != v.tokens.size())
            fail(Errc::format, "gguf: ", file.path(), ": tokenizer.ggml.", name, " has ", size, " entries for ",
                 v.tokens.size(), " tokens");
    auto id = [&](const char* name, int64_t fallback) {
        const int64_t value = file.integer(std::string("tokenizer.ggml.") + name, fallback);
        if (value == std::numeric_limits<uint32_t>::max()) return Token(-1);   // some writers spell "none" so
        if (value < -1 || value >= int64_t(v.tokens.size()))
            fail(Errc::format, "gguf: ", file.path(), ": tokenizer.ggml.", name, " is ", value, ", there are ",
                 v.tokens.size(), " tokens");
        return Token(value);
    };
    v.bos = id("bos_token_id", spm ? 1 : -1);
    v.eos = id("eos_token_id", spm ? 2 : bpe ? -1 : 1);
    v.unk = id("unknown_token_id", spm ? 0 : bpe ? -1 : 2);
    v.eot = id("eot_token_id", -1);
    v.pad = id("padding_token_id", -1);
    // Defaults of llama.cpp, where files leave these out.
    const bool llama3 = v.pre == "llama-bpe" || v.pre == "llama3" || v.pre == "llama-v3" || v.pre == "falcon3" ||
                        v.pre == "pixtral" || v.pre == "tekken";
    v.ignore_merges = !spm && llama3;
    v.add_bos = file.boolean("tokenizer.ggml.add_bos_token", spm || llama3);
    v.add_eos = file.boolean("tokenizer.ggml.add_eos_token", false);
    v.add_space_prefix = file.boolean("tokenizer.ggml.add_space_prefix", spm);
    if (v.kind == Vocabulary::Kind::unigram) load_gguf_room::read_unigram(file, v);
    v.chat_template = file.string("tokenizer.chat_template", "");
    return v;
}

std::shared_ptr<const TokenizerImpl> gguf_tokenizer(const GgufPairs& file) {
    // How we keep the text side of a Hugging Face folder: exact where the other keys are llama.cpp's nearest.
    const std::optional<TextFiles> model = gguf_tokenizer_model(file);
    const bool kept = model || (file.pair("tokenizer.huggingface.json") && file.pair("qlora.family"));
    if (!kept && file.pair("tokenizer.ggml.tokens")) return make_tokenizer(gguf_vocabulary(file), file.path());
    if (!kept && !file.pair("tokenizer.huggingface.json")) return nullptr;
    const std::string text = file.string("qlora.tokenizer_config", ""),
                      chat = file.string("tokenizer.chat_template", "");
    Json config = text.empty() ? Json() : Json::parse(text, file.path() + ": qlora.tokenizer_config");
    // the folder may have had it in a file of its own
    if (!chat.empty() && (config.is_null() || config.is_object())) config.set("chat_template", Json(chat));
    std::vector<Token> ends;
    // too large: refused there
    if (const int64_t eot = file.integer("tokenizer.ggml.eot_token_id", -1); eot >= 0)
        ends.push_back(Token(std::min<int64_t>(eot, INT32_MAX)));
    if (model) {
        TokenizerModel read = read_tokenizer_model(model->model, model->form, config, file.path());
        read.vocabulary.ends = std::move(ends);
        return make_tokenizer(std::move(read), file.path());
    }
    const Json tokenizer = Json::parse(file.string("tokenizer.huggingface.json", ""),
                                       file.path() + ": tokenizer.huggingface.json");
    return load_tokenizer_json(tokenizer, config, file.path(), std::move(ends));
}

std::shared_ptr<ModelImpl> load_gguf_model(const Source& from, const LoadOptions& options, const Family* as) {
    const auto file = Gguf::open_parts(from);
    const std::string& path = from.name();
    if (file->string("general.type", "model") == "adapter")
        fail(Errc::argument, "load ", path,
             ": this file is an adapter; load its base model, then the adapter with Lora::load");
    const std::string architecture = file->string("general.architecture", "");
    const Family* family = family_of_gguf(architecture);
    if (!family)
        fail(Errc::unsupported, "load ", path, ": architecture \"", architecture,
             "\" is not supported; supported families: ", family_names());
    // the one that our writer names, of those that share an architecture
    if (const Family* named = family_named(file->string("qlora.family", "")); named && named->gguf == architecture)
        family = named;
    if (as) family = as;
    const load_gguf_room::Source source{{*file, architecture + ".", path}};
    auto model = std::make_shared<ModelImpl>();
    model->path = path;
    model->backend = impl_of(options.backend);
    model->config = load_gguf_room::config(source, *family);
    const Config& c = model->config;
    model->metadata = load_gguf_room::metadata_of(source, c);
    load_gguf_room::refuse_leftovers(*model, source);
    FusedTensor cut;
    Loading(options, path, c).fill(*model, [&](const Row& row, int64_t layer) {
        return load_gguf_room::read(source, c, row, layer, cut);
    });
    model->tokenizer = gguf_tokenizer(*model->metadata->gguf);
    check_text(*model);
    return model;
}

}}  // namespace qlora
