// save_gguf.cpp - a model into a GGUF file. What came from GGUF keeps its metadata byte for byte and its tensors in
// their stored types; what came from a Hugging Face folder gets the keys of its family. Dense and block types give a
// file that llama.cpp reads; 4-bit codes give one that only this library reads (gguf_model.h), and it loads again bit
// for bit.
#include "src/model/fused.h"
#include "src/model/gguf_model.h"
#include "src/model/recommended.h"
#include "src/model/vocabulary.h"
#include "src/tensor/float8.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

namespace save_gguf_room {

using Type = GgufWriter::Type;

// The first linear layer that is held in 4-bit codes, or null. The type is the same for all of them.
WeightPtr four_bit(const Draft& draft) {
    WeightPtr first;
    for_each_in_file(World::gguf, draft, [&](const Row& row, int64_t, const std::string&, const DraftTensor& t) {
        const WeightPtr& w = t.weight;
        if (!w || !is_4bit(w->dtype)) return;
        if (row.kind != Kind::linear)
            fail(Errc::unsupported, "save: ", w->name,
                 " is held in 4 bits, only the linear layers of the blocks can be saved so");
        if (!first) first = w;
        if (w->dtype != first->dtype)
            fail(Errc::unsupported, "save: ", w->name, " and ", first->name,
                 " are quantized in different ways, which one file cannot hold");
    });
    return first;
}

void describe_codes(const Weight& first, GgufWriter& out) {
    out.set("qlora.type", Type::string, Json(name_of(first.dtype)));
    out.set("qlora.block", Type::u32, Json(first.quant.block));
    out.set("qlora.block2", Type::u32, Json(first.quant.block2));
}

// The keys of the file that the model came from.
void copy_pairs(const GgufPairs& from, GgufWriter& out) {
    for (const GgufPair& p : from.pairs())
        if (p.key != "general.alignment") out.copy(from, p);
}

// general.file_type, llama.cpp's number for the type of most tensors: of a file that was converted, and where there is
// a number.
void set_file_type(const Draft& draft, GgufWriter& out) {
    static constexpr struct {
        DType type;
        int64_t number;
    } numbers[] = {{DType::f32, 0},  {DType::f16, 1},     {DType::q4_0, 2},
                   {DType::q8_0, 7}, {DType::iq4_nl, 25}, {DType::bf16, 32}, {DType::nvfp4, 39}};
    const DType type = draft.at(Slot::q_proj, 0).dtype;
    if (const int before = draft.model.metadata->stored_type; before >= 0 && before == type_info(type).ggml) return;
    for (const auto& row : numbers) {
        if (row.type != type) continue;
        out.set("general.file_type", Type::u32, Json(row.number));
        out.set("general.quantization_version", Type::u32, Json(2));
    }
}

bool by_parameters(const Config& c) {
    return c.rope_scaling.kind == RopeScaling::Kind::linear || c.rope_scaling.kind == RopeScaling::Kind::yarn;
}

// What no key of llama.cpp says, of any family.
void check_for_llama_cpp(const Config& c, const Family& family) {
    const Config start = family.start();
    bool biased = false;
    for (const Module m : {Module::o_proj, Module::gate_proj, Module::up_proj, Module::down_proj})
        biased = biased || (c.biases[size_t(m)] && !start.biases[size_t(m)]);
    const bool act = c.activation != start.activation && !family.gguf_any_gelu;
    refuse_for_llama_cpp(family, act                                        ? "another activation in its feed-forward"
                                 : biased && !family.gguf_biases            ? "biases on all linear layers"
                                 : family.gguf_head == Family::Head::tied && !c.tied ? "a head of its own"
                                 : family.gguf_head == Family::Head::own && c.tied   ? "the embedding as its head"
                                 : c.sliding_theta > 0 && !family.plain_sliding
                                     ? "a rotary base of its own on the layers that slide"
                                     : nullptr);
}

// The keys of a model that did not come from GGUF. Stretched rotary frequencies go where llama.cpp looks for them:
// linear and yarn as parameters, llama3 as a divisor of each in rope_freqs.weight.
void describe_config(const ModelImpl& model, const Family& family, GgufWriter& out, bool codes) {
    const Config& c = model.config;
    const std::string prefix = std::string(family.gguf) + ".";
    auto set = [&](const char* key, int64_t value) { out.set(prefix + key, Type::u32, Json(value)); };
    auto set_list = [&](const std::string& key, Type type, const auto& by_layer) {
        Json::Array list;
        for (const auto v : by_layer) list.push_back(Json(int64_t(v)));
        if (!list.empty()) out.set_array(key, type, std::move(list));
    };
    if (!codes) check_for_llama_cpp(c, family);
    out.set("general.architecture", Type::string, Json(family.gguf));
    out.set("general.type", Type::string, Json("model"));
    out.set("general.quantization_version", Type::u32, Json(2));
    set("vocab_size", c.vocabulary);
    set("context_length", c.context);
    set("embedding_length", c.hidden);
    set("block_count", c.layers);
    set("feed_forward_length", c.feed_forward);
    set("attention.head_count", c.heads);
    if (c.kv_heads_of.empty()) set("attention.head_count_kv", c.kv_heads);
    else set_list(prefix + "attention.head_count_kv", Type::u32, c.kv_heads_of);
    set("attention.key_length", c.head_dim);
    set("attention.value_length", c.head_dim);
    if (!c.learned_positions) set("rope.dimension_count", c.rotated);
    out.set(prefix + std::string(eps_key(c)), Type::f32, Json(double(c.eps)));
    if (!c.learned_positions) out.set(prefix + "rope.freq_base", Type::f32, Json(double(c.rope_theta)));
    if (c.activation != family.start().activation)
        out.set("qlora.activation", Type::string, Json(activation_name(c.activation)));
    if (c.window) {
        set("attention.sliding_window", c.window);
        out.set("qlora.window_from_layer", Type::u32, Json(c.window_from_layer));
        if (family.gguf_pattern) {
            Json::Array slides;
            for (int64_t i = 0; i < c.layers; ++i) slides.push_back(Json(c.slides(i)));
            out.set_array(prefix + "attention.sliding_window_pattern", Type::boolean, std::move(slides));
        } else set_list("qlora.sliding", Type::u8, c.sliding);
        const float sliding = c.sliding_theta > 0 ? c.sliding_theta : family.plain_sliding ? c.rope_theta : 0;
        if (sliding > 0) out.set(prefix + "rope.freq_base_swa", Type::f32, Json(double(sliding)));
    }
    set_list("qlora.turned", Type::u8, c.turned);
    if (family.write_gguf) family.write_gguf(c, family, out, codes);
    out.set("qlora.family", Type::string, Json(c.family));
    double magnitude = double(c.rope_magnitude);
    if (by_parameters(c)) {
        const bool yarn = c.rope_scaling.kind == RopeScaling::Kind::yarn;
        out.set(prefix + "rope.scaling.type", Type::string, Json(yarn ? "yarn" : "linear"));
        out.set(prefix + "rope.scaling.factor", Type::f32, Json(c.rope_scaling.factor));
        if (yarn) {
            set("rope.scaling.original_context_length", int64_t(c.rope_scaling.original_context));
            out.set(prefix + "rope.scaling.yarn_beta_fast", Type::f32, Json(c.rope_scaling.beta_fast));
            out.set(prefix + "rope.scaling.yarn_beta_slow", Type::f32, Json(c.rope_scaling.beta_slow));
            // llama.cpp multiplies by this itself
            magnitude /= 0.1 * std::log(std::max(c.rope_scaling.factor, 1.0)) + 1;
        }
    }
    if (!c.long_frequencies.empty())
        set("rope.scaling.original_context_length", int64_t(c.rope_scaling.original_context));
    if (std::fabs(magnitude - 1) > 1e-6) {
        out.set(prefix + "rope.scaling.attn_factor", Type::f32, Json(magnitude));
        // a product of two floats, which may miss the last bit, is kept beside it for our own loader
        if (magnitude != double(c.rope_magnitude))
            out.set("qlora.rope_magnitude", Type::f32, Json(double(c.rope_magnitude)));
    }
}

int number_of(const std::string& name, DType dtype) {
    const int type = type_info(dtype).ggml;
    if (type < 0)
        fail(Errc::unsupported, "save: ", name, " is of type ", name_of(dtype),
             ", which GGUF cannot hold; choose bf16 or q8_0 for the file (export --type)");
    return type;
}

// The scale of a whole tensor in nvfp4, where it is not 1.
void scale_of(GgufWriter& out, const std::string& name, const DraftTensor& t) {
    const float scale = t.dtype == DType::nvfp4 ? nvfp4_tensor_scale(t.now()->quant.absmax_map) : 1;
    if (scale != 1)
        out.add({gguf_scale_name(name), 0, {1}, 4, [scale](AtomicFile& f) { f.write(&scale, sizeof scale); }});
}

void tensor(GgufWriter& out, const std::string& name, const DraftTensor& t, const FourBit& said = {}) {
    if (is_4bit(t.dtype)) return write_four_bit(out, name, t.now(), said);
    const int type = number_of(name, t.dtype);
    scale_of(out, name, t);
    out.add({name, type, t.shape, t.bytes(), [t](AtomicFile& f) {
        const WeightPtr made = t.now();
        f.write(made->data, made->bytes());
        made->check();
    }});
}

// A q or k matrix (or bias) in Hugging Face row order, written in GGUF's order for adjacent pairs: whole rows move.
void permuted(GgufWriter& out, const std::string& name, const DraftTensor& t, int64_t head_dim) {
    const int64_t rows = t.shape[0], row = t.bytes() / rows;
    const int type = number_of(name, t.dtype);
    scale_of(out, name, t);
    out.add({name, type, t.shape, t.bytes(), [t, rows, row, head_dim](AtomicFile& f) {
        const WeightPtr made = t.now();
        for (int64_t r = 0; r < rows; ++r) f.write(made->data + hf_row_of_gguf(r, head_dim) * row, row);
        made->check();
    }});
}

// rope_freqs.weight: theta^(-2i / n) / frequency, which llama.cpp reads in files of architecture llama. Dividing twice
// may cost the last bit, so the frequencies themselves are kept beside it for our own loader.
void frequencies(GgufWriter& out, const ModelImpl& model, const Family& family, bool codes) {
    const Config& c = model.config;
    Config told = c;                                   // what the keys say by themselves
    RopeScaling said = by_parameters(c) || !c.long_frequencies.empty() ? c.rope_scaling : RopeScaling{};
    said.truncate = true;
    set_frequencies(told, double(c.rope_theta), said, "save");
    std::vector<float> divisors(c.inverse_frequencies.size());
    for (size_t i = 0; i < divisors.size(); ++i) divisors[i] = told.inverse_frequencies[i] / c.inverse_frequencies[i];
    if (std::all_of(divisors.begin(), divisors.end(), [](float d) { return d == 1; })) return;
    if (!family.rope_freqs && !codes)
        fail(Errc::unsupported, "save: llama.cpp has no counterpart for the rotary scaling of ", model.path,
             "; save a Hugging Face folder, or 4-bit codes, which only this library reads");
    Json::Array exact;
    for (float f : c.inverse_frequencies) exact.push_back(Json(double(f)));
    out.set_array("qlora.inverse_frequencies", Type::f32, std::move(exact));
    out.add({"rope_freqs.weight",
             0,
             {int64_t(divisors.size())},
             int64_t(divisors.size()) * 4,
             [d = divisors](AtomicFile& f) { f.write(d.data(), int64_t(d.size()) * 4); }});
}

// longrope: the divisors of both lists, which llama.cpp reads in files of architecture phi3.
void long_factors(GgufWriter& out, const ModelImpl& model, const Family& family, bool codes) {
    const RopeScaling& s = model.config.rope_scaling;
    if (family.gguf != "phi3" && !codes)
        fail(Errc::unsupported, "save: llama.cpp has no counterpart for the longrope of ", model.path,
             "; save a Hugging Face folder, or 4-bit codes, which only this library reads");
    for (const auto& [name, factors] : {std::pair{"rope_factors_long.weight", &s.long_factors},
                                        std::pair{"rope_factors_short.weight", &s.short_factors}})
        out.add({name, 0, {int64_t(factors->size())}, int64_t(factors->size()) * 4,
                 [f = *factors](AtomicFile& file) { file.write(f.data(), int64_t(f.size()) * 4); }});
}

// The tokenizer of a Hugging Face folder travels as its own files do, for us, and as llama.cpp reads it.
void write_text(const ModelImpl& model, GgufWriter& out, bool codes) {
    if (!model.tokenizer) {
        if (!model.metadata->gguf) out.set("tokenizer.ggml.model", Type::string, Json("none"));
        return;
    }
    const std::optional<TextFiles> files = original_text(model);
    if (!files && model.metadata->gguf) return;        // its own keys have been copied
    if (!files)
        fail(Errc::argument, "save: ", model.path, " has a tokenizer without the file that it was read from; "
             "save the model without it");
    if (files->model.empty()) out.set("tokenizer.huggingface.json", Type::string, Json(files->tokenizer));
    else write_tokenizer_model(out, *files);
    if (!files->config.empty()) out.set("qlora.tokenizer_config", Type::string, Json(files->config));
    if (!files->chat_template.empty()) out.set("tokenizer.chat_template", Type::string, Json(files->chat_template));
    if (!write_gguf_vocabulary(out, *files, model) && !codes)
        fail(Errc::unsupported, "save: llama.cpp has no counterpart for the tokenizer of ", model.path,
             "; save a Hugging Face folder, or 4-bit codes, which only this library reads");
}

}  // namespace save_gguf_room

void save_gguf_model(const Draft& draft, const std::string& path) {
    namespace room = save_gguf_room;
    const ModelImpl& model = draft.model;
    const Config& c = model.config;
    const bool as_it_came = model.metadata->gguf.has_value();
    const Family& family = *family_named(c.family);
    GgufWriter out;
    // 4-bit codes cross row borders and stay in the order they have; only we read such files anyway.
    const WeightPtr coded = room::four_bit(draft);
    const bool codes = coded != nullptr;
    if (as_it_came) room::copy_pairs(*model.metadata->gguf, out);
    else room::describe_config(model, family, out, codes), write_recommended(model, out);
    room::set_file_type(draft, out);
    if (coded) room::describe_codes(*coded, out);
    const bool permute = family.adjacent_pairs && !c.adjacent_pairs && !codes && c.rotated == c.head_dim;
    // Our own keys that no longer hold: the file may have come from one with codes, which is in another order.
    std::erase_if(out.pairs, [&](const GgufWriter::Pair& p) {
        return (!codes && (p.key == "qlora.type" || p.key == "qlora.block" || p.key == "qlora.block2")) ||
               (permute && p.key == "qlora.adjacent_pairs");
    });
    if (family.adjacent_pairs && !c.adjacent_pairs && !permute)
        out.set("qlora.adjacent_pairs", room::Type::boolean, Json(false));
    room::write_text(model, out, codes);
    for_each_in_file(World::gguf, draft, [&](const Row& row, int64_t, const std::string& name, const DraftTensor& t) {
        if (permute && row.turned) room::permuted(out, name, t, c.head_dim);
        else room::tensor(out, name, t, coded ? coded->quant : FourBit{});
    });
    if (!c.long_frequencies.empty()) room::long_factors(out, model, family, codes);
    if (model.metadata->rope_freqs) room::tensor(out, "rope_freqs.weight", model.metadata->rope_freqs);
    else if (!as_it_came) room::frequencies(out, model, family, codes);
    out.write(path);
}

}}  // namespace qlora
