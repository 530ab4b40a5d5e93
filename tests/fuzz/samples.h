// samples.h - small valid files of every kind, for the fuzz targets to begin with.
#pragma once
#include "src/format/gguf.h"
#include "src/format/safetensors.h"
#include "src/model/gguf_model.h"
#include "src/model/lora.h"
#include "src/run/merge.h"
#include "src/tensor/encode.h"
#include "src/text/token_core.h"
#include "tests/fuzz/targets.h"

namespace fuzz {

inline std::shared_ptr<const ModelImpl> model() {
    static const auto m = tiny::make({.vocabulary = 300});
    return m;
}

// The smallest models: of dense weights, and of linear layers that can be held in 4 bits (head_dim: with less
// attention). Seeds are small, because what is changed of a large one is mostly its numbers.
inline tiny::Spec smallest(const std::string& family, bool tied = true) {
    return {.family = family,
            .layers = 1,
            .hidden = 8,
            .heads = 2,
            .kv_heads = 1,
            .head_dim = 4,
            .feed_forward = 8,
            .vocabulary = 8,
            .tied = tied};
}
inline std::shared_ptr<ModelImpl> small_model(bool tied, int64_t head_dim = 32) {
    tiny::Spec spec = smallest("llama", tied);
    spec.hidden = spec.feed_forward = 64;
    spec.head_dim = head_dim;
    return tiny::make(spec);
}

inline std::string gguf_of(const ModelImpl& m) {
    save_gguf_model(m, folder() + "/sample.gguf");
    return bytes_of(folder() + "/sample.gguf");
}

// A byte-level vocabulary of its 256 bytes, a few merges and control tokens: small enough to mutate.
inline std::string tokenizer_json() {
    Json vocabulary = Json::Object{};
    for (int i = 0; i < 256; ++i) vocabulary.set(byte_level_text(std::string(1, char(i))), int64_t(i));
    vocabulary.set("he", int64_t(256)).set("ll", int64_t(257)).set("hell", int64_t(258));
    Json added = Json::Array{};
    for (const auto& [id, text] : {std::pair(259, "<|im_start|>"), std::pair(260, "<|im_end|>"), std::pair(261, "<n>")})
        added.array().push_back(Json{}
                                    .set("id", int64_t(id))
                                    .set("content", text)
                                    .set("special", id != 261)
                                    .set("single_word", false)
                                    .set("lstrip", false)
                                    .set("rstrip", false)
                                    .set("normalized", id == 261));
    const Json split = Json::parse(
        R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false})",
        "seed");
    const Json bytes = Json::parse(
        R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})", "seed");
    Json bpe = Json{}
                   .set("type", "BPE")
                   .set("dropout", Json())
                   .set("unk_token", Json())
                   .set("continuing_subword_prefix", Json())
                   .set("end_of_word_suffix", Json());
    bpe.set("fuse_unk", false)
        .set("byte_fallback", false)
        .set("vocab", vocabulary)
        .set("merges", Json(Json::Array{Json("h e"), Json("l l"), Json("he ll")}));
    return Json{}
        .set("version", "1.0")
        .set("truncation", Json())
        .set("padding", Json())
        .set("added_tokens", added)
        .set("normalizer", Json::parse(R"({"type": "NFC"})", "seed"))
        .set("pre_tokenizer", Json{}.set("type", "Sequence").set("pretokenizers", Json(Json::Array{split, bytes})))
        .set("post_processor", Json())
        .set("decoder", bytes)
        .set("model", bpe)
        .dump();
}

// Characters, bytes as a fallback, and every other component that is read.
inline std::string spm_tokenizer_json() {
    return R"({"added_tokens": [{"id": 0, "content": "<unk>", "special": true, "normalized": false}, {"id": 1, "content": "<s>", "special": true, "normalized": true, "lstrip": true, "rstrip": true, "single_word": true},
            {"id": 8, "content": "</s>", "special": true, "normalized": false}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": false}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": true}, {"type": "Split", "pattern": {"String": "_"}, "behavior": "MergedWithNext", "invert": false}, {"type": "Digits", "individual_digits": true}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "_": 3, "h": 4, "e": 5, "he": 6, "_he": 7}, "merges": ["h e", ["_", "he"]]}})";
}

inline std::shared_ptr<const TokenizerImpl> tokenizer(const char* chat_template = nullptr) {
    Json config;
    if (chat_template) config.set("chat_template", chat_template).set("eos_token", "<|im_end|>");
    return load_tokenizer_json(Json::parse(tokenizer_json(), "seed"), config, "seed");
}

// GGUF vocabularies: SentencePiece's with its bytes, and byte-level BPE.
// phi: with the tokens that Phi-3 is known by.
inline std::string vocabulary(bool spm, bool phi = false) {
    using Key = GgufWriter::Type;
    Json::Array tokens, scores, types;
    const auto add = [&](std::string text, double score, int type) {
        tokens.push_back(Json(std::move(text)));
        scores.push_back(Json(score));
        types.push_back(Json(int64_t(type)));
    };
    for (const char* text : {"<unk>", "<s>", "</s>"}) add(text, 0, *(text + 1) == 'u' ? 2 : 3);
    for (int i = 0; i < 256; ++i) {
        static const char* digit = "0123456789ABCDEF";
        if (spm) add(std::string("<0x") + digit[i / 16] + digit[i % 16] + ">", 0, 6);
        else add(byte_level_text(std::string(1, char(i))), 0, 1);
    }
    if (spm) for (const char* text : {"\xE2\x96\x81", "H", "e", "l"}) add(text, -2, 1);
    add("ll", -1.5, 1);
    if (phi) for (const char* text : {"<|placeholder1|>", "<|assistant|>"}) add(text, 0, 3);
    GgufWriter writer;
    writer.set("general.architecture", Key::string, "llama");
    writer.set("tokenizer.ggml.model", Key::string, spm ? "llama" : "gpt2");
    writer.set("tokenizer.ggml.pre", Key::string, spm ? "default" : "llama-bpe");
    writer.set_array("tokenizer.ggml.tokens", Key::string, std::move(tokens));
    writer.set_array("tokenizer.ggml.token_type", Key::i32, std::move(types));
    if (spm) writer.set_array("tokenizer.ggml.scores", Key::f32, std::move(scores));
    else writer.set_array("tokenizer.ggml.merges", Key::string, {Json("l l")});
    writer.set("tokenizer.ggml.bos_token_id", Key::u32, int64_t(1));
    writer.set("tokenizer.ggml.eos_token_id", Key::u32, int64_t(2));
    writer.set("tokenizer.chat_template", Key::string, "{{ messages[0].content }}");
    writer.write(folder() + "/vocabulary-sample.gguf");
    return bytes_of(folder() + "/vocabulary-sample.gguf");
}

// A PEFT folder for model(), written anew: targets change its files.
inline const std::string& adapter() {
    static const std::string path = folder() + "/adapter";
    static const bool once = [] {
        return save_lora_peft(*create_lora(model(), {.rank = 2, .modules = "q_proj,down_proj"}), path), true;
    }();
    (void)once;
    return path;
}

inline std::string adapter_file(const char* name) { return bytes_of(adapter() + "/" + name); }

// The tensors of a folder with attention in f8_e4m3 and the rest of the linear layers in nvfp4, in both of its layouts.
inline void write_float8(const std::string& folder) {
    const auto file = SafeTensors::open(folder + "/model.safetensors");
    SafeTensorsWriter out;
    const auto add = [&](const std::string& name, const char* type, Shape shape, std::string bytes) {
        out.tensors.push_back({name, type, std::move(shape), int64_t(bytes.size()), [bytes](AtomicFile& f) {
            f.write(bytes.data(), int64_t(bytes.size()));
        }});
    };
    for (const SafeTensor& t : file->tensors()) {
        const size_t n = size_t(elements_of(t.shape));
        const std::string stem = t.name.substr(0, t.name.rfind('.'));
        const bool packed = stem.ends_with("up_proj");
        if (stem.find(".self_attn.") != stem.npos) {
            add(t.name, "F8_E4M3", t.shape, std::string(n, '\x31'));
            out.add(stem + ".weight_scale_inv", {1, 1}, {0.1f});
        } else if (stem.find(".mlp.") != stem.npos) {
            add(stem + (packed ? ".weight_packed" : ".weight"), "U8", {t.shape[0], t.shape[1] / 2},
                std::string(n / 2, '\x3a'));
            add(stem + ".weight_scale", "F8_E4M3", {t.shape[0], t.shape[1] / 16}, std::string(n / 16, '\x38'));
            out.add(stem + (packed ? ".weight_global_scale" : ".weight_scale_2"), {1}, {packed ? 9.0f : 0.1f});
        } else {
            add(t.name, t.dtype.c_str(), t.shape, {reinterpret_cast<const char*>(t.data), size_t(t.bytes)});
        }
    }
    out.write(folder + "/model.safetensors");
    Json config = Json::parse(bytes_of(folder + "/config.json"), "seed");
    config.set("quantization_config",
               Json::parse(R"({"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": {"group_0":
                   {"format": "float-quantized", "weights": {"num_bits": 8, "block_structure": [128, 128]}}, "group_1": {"format": null}}})",
                           "seed"));
    write_file_atomic(folder + "/config.json", config.dump());
}

// Hugging Face folders: as it is, in 4 bits, in shards, and in 8-bit floats.
enum class Folder { plain, four_bit, shards, float8 };
inline const std::string& hugging_face(Folder kind) {
    static std::map<Folder, std::string> made;
    std::string& path = made[kind];
    if (!path.empty()) return path;
    path = folder() + "/hf" + std::to_string(int(kind));
    const bool dense = kind == Folder::plain || kind == Folder::shards;
    save_gguf_model(dense ? *tiny::make(smallest("llama", false))
                          : *small_model(false, kind == Folder::float8 ? 4 : 32),
                    folder() + "/source.gguf");
    const auto source = tiny::load(folder() + "/source.gguf");
    if (kind == Folder::four_bit) save_hf_model(*convert_model(*source, DType::nf4, true), path);
    else save_hf_model(*source, path, kind == Folder::shards ? 1000 : 5'000'000'000);
    if (kind == Folder::float8) write_float8(path);
    return path;
}

}  // namespace fuzz
