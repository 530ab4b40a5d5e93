// told.h - fuzz targets of models and adapters told in JSON: what is changed are names, types, shapes and values, and
// not the offsets of a file, which the targets of whole files change.
#pragma once
#include "tests/fuzz/formats.h"

#include <tuple>

namespace fuzz {

// A folder told in JSON, so that what is changed are names, types and shapes and not offsets: {"config": config.json,
// "tensors": {NAME: [TYPE, SHAPE, TEXT of it, if any]}}.
inline std::string told(const std::string& path) {
    const auto file = SafeTensors::open(path + "/model.safetensors");
    Json tensors = Json::Object{};
    for (const SafeTensor& t : file->tensors()) {
        Json::Array shape;
        for (const int64_t n : t.shape) shape.push_back(Json(n));
        Json::Array of{Json(t.dtype), Json(std::move(shape))};
        if (t.name.find("quant_state") != t.name.npos)
            of.push_back(Json(std::string(reinterpret_cast<const char*>(t.data), size_t(t.bytes))));
        tensors.set(t.name, Json(std::move(of)));
    }
    return Json().set("config", Json::parse(bytes_of(path + "/config.json"), "seed")).set("tensors", tensors).dump();
}

inline Seeds told_folders() {
    Seeds seeds{told(hugging_face(Folder::four_bit)), told(hugging_face(Folder::float8))};
    const Json plain = Json::parse(told(hugging_face(Folder::plain)), "seed");
    seeds.push_back(Json(plain).set("tokenizer", spm_tokenizer_json()).dump());
    seeds.push_back(Json(plain).set("tokenizer", tokenizer_json()).dump());
    for (const std::string& family : tiny::every_family()) {
        const std::string path = folder() + "/family";
        std::filesystem::remove_all(path);
        save_hf_model(*tiny::make({.family = family, .layers = 2, .hidden = 16, .heads = 2, .kv_heads = 1,
                                   .head_dim = 8, .feed_forward = 16, .vocabulary = 8}), path);
        seeds.push_back(told(path));
        for (const auto& [kind, type, name] :
             {std::tuple("gemma3_text", "gemma3", "Gemma3ForConditionalGeneration"),
              std::tuple("mistral", "mistral3", "Mistral3ForConditionalGeneration")}) {
            if (family != kind) continue;              // inside of a model that sees
            const Json whole = Json::parse(seeds.back(), "seed");
            Json tensors = Json().set("vision_tower.x", Json::Array{Json("F32"), Json(Json::Array{Json(int64_t(1))})});
            for (const auto& [tensor, of] : whole.find("tensors")->object())
                tensors.set("language_model." + tensor, of);
            seeds.push_back(Json().set("config", Json().set("model_type", type)
                                                     .set("architectures", Json::Array{Json(name)})
                                                     .set("text_config", *whole.find("config")))
                                .set("tensors", std::move(tensors)).dump());
        }
        if (family != "gpt2") continue;                // whose checkpoints leave out the root of the names
        Json other = Json::parse(seeds.back(), "seed");
        other.set("config", Json(*other.find("config")).set("scale_attn_by_inverse_layer_idx", true));
        seeds.push_back(other.dump());
        std::swap(seeds.back(), seeds[seeds.size() - 2]);
        std::string bare = seeds.back();
        for (size_t at; (at = bare.find("transformer.")) != bare.npos;) bare.erase(at, 12);
        seeds.push_back(bare);
    }
    return seeds;
}

inline void read_told(std::string_view bytes) {
    static const std::map<std::string, int64_t> sizes{{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2},
                                                      {"U8", 1}, {"I8", 1}, {"F8_E4M3", 1}};
    const Json all = Json::parse(bytes, "fuzz");
    const Json *config = all.find("config"), *tensors = all.find("tensors");
    if (!config || !tensors) return;
    SafeTensorsWriter writer;
    int64_t left = 1 << 17;
    for (const auto& [name, of] : tensors->as_object("tensors")) {
        const Json::Array& fields = of.as_array("tensor");
        if (fields.size() < 2) return;
        const std::string type = fields[0].as_string("type");
        Shape shape;
        int64_t count = 1;
        for (const Json& n : fields[1].as_array("shape")) {
            shape.push_back(n.as_int("size"));
            if (shape.size() > 8 || shape.back() < 0 || shape.back() > left) return;
            if ((count *= shape.back()) > left) return;
        }
        const auto size = sizes.find(type);
        if (size == sizes.end() || (left -= count * size->second) < 0) return;
        std::string data(size_t(count * size->second), '\x3a');
        if (fields.size() > 2) data = fields[2].as_string("text").substr(0, data.size());
        data.resize(size_t(count * size->second), ' ');
        writer.tensors.push_back({name, type, shape, int64_t(data.size()), [data](AtomicFile& f) {
            f.write(data.data(), int64_t(data.size()));
        }});
    }
    LoadOptions options{.backend = handle_of<Backend>(tiny::backend())};
    if (bytes.size() % 3) options.quantize = bytes.size() % 3 == 1 ? DType::nf4 : DType::fp4;
    options.double_quant = bytes.size() % 2;
    Files files{{"config.json", config->dump()}, {"model.safetensors", writer.bytes()}};
    if (const Json* t = all.find("tokenizer")) files["tokenizer.json"] = t->as_string("tokenizer");
    const auto m = load_hf_model(Source::folder(std::move(files)), options);
    use(m);
    original_text(*m);
}

// A GGUF file in the same way: {"pairs": {KEY: [TYPE, VALUE]}, "tensors": {NAME: [TYPE, SHAPE]}}, where the type of an
// array is 100 more than that of its elements.
inline std::string told_gguf(const std::string& bytes) {
    const auto file = Gguf::open(put("told.gguf", bytes));
    Json pairs = Json::Object{}, tensors = Json::Object{};
    using Type = GgufWriter::Type;
    for (const GgufPair& p : file->pairs()) {
        const bool list = Type(p.type) == Type::array;
        const Type type = Type(list ? p.element : p.type);
        Json::Array values;
        if (type == Type::string && !list) values.push_back(Json(file->string(p.key, "")));
        else if (type == Type::boolean && !list) values.push_back(Json(file->boolean(p.key, false)));
        else if (type == Type::string) for (std::string& v : file->strings(p.key)) values.push_back(Json(std::move(v)));
        else if (type == Type::f32 || type == Type::f64)
            for (const float v : file->floats(p.key)) values.push_back(Json(double(v)));
        else
            for (const int64_t v : file->integers(p.key)) values.push_back(Json(v));
        Json value = list ? Json(std::move(values)) : values.at(0);
        pairs.set(p.key, Json::Array{Json(int64_t(type) + (list ? 100 : 0)), std::move(value)});
    }
    for (const GgufTensor& t : file->tensors()) {
        Json::Array shape;
        for (const int64_t n : t.shape) shape.push_back(Json(n));
        tensors.set(t.name, Json::Array{Json(t.ggml_type), Json(std::move(shape))});
    }
    return Json().set("pairs", std::move(pairs)).set("tensors", std::move(tensors)).dump();
}

// Of every target whose files are GGUF.
inline Seeds told_ggufs() {
    Seeds seeds;
    for (const char* target : {"gguf", "gguf_four_bit", "gguf_nvfp4", "vocabulary", "adapter_gguf"})
        for (const std::string& bytes : formats().at(target).seeds()) {
            seeds.push_back(told_gguf(bytes));
            if (target != std::string_view("gguf_four_bit")) continue;
            Json other = Json::parse(seeds.back(), "seed");            // blocks of its own
            const Json blocks = Json::Array{Json(int64_t(0)), Json(Json::Array{Json(int64_t(2))})};
            other.set("tensors", Json(*other.find("tensors")).set("blk.0.attn_q.weight.blocks", blocks));
            seeds.push_back(other.dump());
            Json row = *other.find("tensors")->find("blk.0.attn_q.weight");            // and codes that are no matrix
            row.array()[1] = Json::Array{Json(int64_t(2048))};
            seeds.push_back(other.set("tensors", Json(*other.find("tensors")).set("blk.0.attn_q.weight", row)).dump());
        }
    Json whole = Json::parse(seeds[0], "seed"), pairs = *whole.find("pairs");          // a model with a vocabulary
    const Json words = Json::parse(told_gguf(vocabulary(true)), "seed");
    for (const auto& [key, value] : words.find("pairs")->object()) pairs.set(key, value);
    seeds.push_back(whole.set("pairs", pairs).dump());
    return seeds;
}

inline void read_told_gguf(std::string_view bytes) {
    using Type = GgufWriter::Type;
    const Json all = Json::parse(bytes, "fuzz");
    const Json *pairs = all.find("pairs"), *tensors = all.find("tensors");
    if (!pairs || !tensors) return;
    GgufWriter writer;
    for (const auto& [key, of] : pairs->as_object("pairs")) {
        const Json::Array& fields = of.as_array("pair");
        if (fields.size() != 2) return;
        const int64_t type = fields[0].as_int("type");
        if (type < 0 || type % 100 > 12 || type > 112 || Type(type % 100) == Type::array) return;
        if (type < 100) writer.set(key, Type(type), fields[1]);
        else writer.set_array(key, Type(type - 100), fields[1].as_array("values"));
    }
    int64_t left = 1 << 17;
    for (const auto& [name, of] : tensors->as_object("tensors")) {
        const Json::Array& fields = of.as_array("tensor");
        if (fields.size() != 2) return;
        Shape shape;
        int64_t count = 1;
        for (const Json& n : fields[1].as_array("shape")) {
            shape.push_back(n.as_int("size"));
            if (shape.size() > 4 || shape.back() < 0 || shape.back() > left || (count *= shape.back()) > left) return;
        }
        const int64_t type = fields[0].as_int("type"), size = 8 * count;       // as much as any type needs
        const TypeInfo* known = type_of_ggml(int(std::clamp<int64_t>(type, -1, 1000)));
        const int64_t bytes_of_it = known ? (count + known->block - 1) / known->block * known->bytes : size;
        if (shape.empty() || (left -= bytes_of_it) < 0) return;
        const std::string data(size_t(bytes_of_it), '\x3a');
        writer.add({name, int(std::clamp<int64_t>(type, -1, 1000)), shape, bytes_of_it, [data](AtomicFile& f) {
            f.write(data.data(), int64_t(data.size()));
        }});
    }
    const std::string path = folder() + "/of-told.gguf";
    writer.write(path);
    const std::string written = bytes_of(path);
    if (Gguf::open(path)->string("general.type", "model") == "adapter") load_lora(model(), path);
    else if (tensors->object().empty()) read_vocabulary(written);
    else read_gguf(written);
}

inline Targets told() {
    return {{"folder", {told_folders, read_told}}, {"gguf_keys", {told_ggufs, read_told_gguf}}};
}

}  // namespace fuzz
