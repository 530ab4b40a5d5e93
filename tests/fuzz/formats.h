// formats.h - fuzz targets of the container formats: JSON, safetensors, GGUF as models, vocabularies and adapters, and
// 4-bit tensors in it.
#pragma once
#include "src/model/family.h"
#include "src/model/vocabulary.h"
#include "src/text/tokenizer_model.h"
#include "tests/fuzz/samples.h"
#include "tests/support/sentencepiece_file.h"

namespace fuzz {

inline void read_json(std::string_view bytes) {
    const std::string printed = Json::parse(bytes, "fuzz").dump();
    if (Json::parse(printed, "again").dump() != printed) std::abort();
}

// A header alone stands for a file that has it.
inline void read_safetensors(std::string_view bytes) {
    std::string whole(bytes);
    if (bytes.starts_with('{')) {
        whole.insert(0, 8, '\0');
        for (int i = 0; i < 8; ++i) whole[size_t(i)] = char(bytes.size() >> 8 * i & 255);
        whole.append(64, '\x3a');
    }
    const auto file = SafeTensors::open(put("x.safetensors", whole));
    for (const SafeTensor& t : file->tensors()) {
        if (t.dtype == "F32" || t.dtype == "F64") file->floats(t);
        if (t.dtype == "F16" || t.dtype == "BF16") file->weight(t).decoded();
        if (file->find(t.name) != &t) std::abort();
    }
}

// A tensor of every type.
inline std::string safetensors_of_types() {
    SafeTensorsWriter writer;
    for (const auto& [type, size] : {std::pair("F64", 8), std::pair("F32", 4), std::pair("F16", 2),
                                     std::pair("BF16", 2), std::pair("U8", 1), std::pair("F8_E4M3", 1)}) {
        const std::string data(size_t(2 * size), '\x3a');
        writer.tensors.push_back({str("\xC3\xA9", type), type, {2}, 2 * size, [data](AtomicFile& f) {
            f.write(data.data(), int64_t(data.size()));
        }});
    }
    return writer.bytes();
}

// What GGUF says of rotary scaling, in every way.
inline Seeds scaled_models() {
    Seeds seeds;
    using Kind = RopeScaling::Kind;
    for (const Kind kind : {Kind::linear, Kind::yarn, Kind::llama3, Kind::longrope}) {
        auto m = std::make_shared<ModelImpl>(*tiny::make(smallest(kind == Kind::longrope ? "phi3" : "llama")));
        RopeScaling& s = m->config.rope_scaling;
        s.kind = kind;
        s.factor = 4;
        s.original_context = double(m->config.context) / 4;
        if (kind == Kind::longrope) s.short_factors = {1, 1}, s.long_factors = {2, 2};
        m->config.inverse_frequencies.clear();
        set_frequencies(m->config, 10000, s, "seed");
        seeds.push_back(gguf_of(*m));
    }
    return seeds;
}

// Vocabularies as our writer puts them: SentencePiece's models, whole lists of tiktoken, and a tokenizer.json.
inline Seeds written_vocabularies() {
    namespace file = sentencepiece_file;
    const std::string map("\x08\0\0\0\0\x04\0\0h\x05\0\0x\0", 14);
    Seeds seeds;
    const auto add = [&](const TextFiles& files, std::shared_ptr<const TokenizerImpl> t, bool beside) {
        auto m = std::make_shared<ModelImpl>(*model());
        m->tokenizer = std::move(t);
        GgufWriter writer;
        writer.set("general.architecture", GgufWriter::Type::string, "llama");
        if (beside) writer.set("qlora.family", GgufWriter::Type::string, "llama");
        if (beside && !files.model.empty()) write_tokenizer_model(writer, files);
        if (beside && files.model.empty())
            writer.set("tokenizer.huggingface.json", GgufWriter::Type::string, files.tokenizer);
        if (!beside) write_gguf_vocabulary(writer, files, *m);
        writer.write(folder() + "/vocabulary-sample.gguf");
        seeds.push_back(bytes_of(folder() + "/vocabulary-sample.gguf"));
    };
    for (const bool beside : {false, true}) {
        for (const std::string& bytes : {file::model(2), file::model(1, "", file::bytes(2, map)), file::ranks()})
            add({"", "", "", bytes, "qwen"},
                make_tokenizer(read_tokenizer_model(bytes, "qwen", Json(), "seed"), "seed"), beside);
        for (const std::string& json : {tokenizer_json(), spm_tokenizer_json()})
            add({json, "", ""}, load_tokenizer_json(Json::parse(json, "seed"), Json(), "seed"), beside);
    }
    return seeds;
}

// A vocabulary put to use, and written as files of Hugging Face.
inline void read_vocabulary(std::string_view bytes) {
    const std::string path = put("vocabulary.gguf", bytes);
    auto m = std::make_shared<ModelImpl>(*model());
    m->tokenizer = load_tokenizer(path);
    if (m->tokenizer) use(*m->tokenizer, "Hello <s> w\xC3\xB6rld  1234");
    auto metadata = std::make_shared<Metadata>();
    metadata->gguf = *Gguf::open(path);
    m->metadata = metadata;
    if (original_text(*m) || !m->tokenizer) return;
    const TextFiles files = hf_vocabulary(*m);
    const Json config = Json::parse(files.config, "again");
    use(*load_tokenizer_json(Json::parse(files.tokenizer, "again"), config, "again"), "Hello");
}

// Everything that a file says, asked for in every way; then the model.
inline void read_gguf(std::string_view bytes) {
    const std::string path = put("model.gguf", bytes);
    const auto file = Gguf::open(path);
    const auto ask = [](const auto& question) {
        try { question(); } catch (const Error&) {}
    };
    for (const GgufPair& p : file->pairs()) {
        ask([&] { file->integers(p.key); });
        ask([&] { file->floats(p.key); });
        ask([&] { file->strings(p.key); });
        ask([&] { file->integer(p.key); });
        ask([&] { file->number(p.key, 0); });
    }
    for (const GgufTensor& t : file->tensors()) ask([&] { file->weight(t).decoded(); });
    const auto m = tiny::load(path);
    if (m->tokenizer) use(*m->tokenizer, "Hello <s> w\xC3\xB6rld  1234");
    use(m);
}

// The smallest model in two files: every second tensor, and all metadata in the first.
inline std::string part_of_model(int64_t number) {
    static const std::string whole = gguf_of(*tiny::make(smallest("llama")));
    const auto file = Gguf::open(put("whole.gguf", whole));
    GgufWriter out;
    if (number == 0)
        for (const GgufPair& pair : file->pairs()) out.copy(*file, pair);
    out.set("split.no", GgufWriter::Type::u16, Json(number));
    out.set("split.count", GgufWriter::Type::u16, Json(int64_t(2)));
    out.set("split.tensors.count", GgufWriter::Type::i32, Json(int64_t(file->tensors().size())));
    for (size_t i = size_t(number); i < file->tensors().size(); i += 2) {
        const GgufTensor& t = file->tensors()[i];
        out.add({t.name, t.ggml_type, t.shape, t.bytes,
                 [file, &t](AtomicFile& f) { f.write(file->data(t), t.bytes); }});
    }
    out.write(folder() + "/part.gguf");
    return bytes_of(folder() + "/part.gguf");
}

// What comes in is one of the two, beside the valid other one.
inline void read_parts(std::string_view bytes) {
    static const std::string first = part_of_model(0), second = part_of_model(1);
    for (const bool is_first : {true, false}) {
        put("m-00002-of-00002.gguf", is_first ? std::string_view(second) : bytes);
        const std::string path = put("m-00001-of-00002.gguf", is_first ? bytes : std::string_view(first));
        try {
            use(tiny::load(path));
        } catch (const Error&) {                       // as the other one it may still be read
        }
    }
}

inline Targets formats() {
    return {
        {"json",
         {[] {
              return Seeds{R"({"a": [1, -2.5e3, "x\u00e9\ud83d\ude00\n", null, true, {}]})",
                           "[1e400, -0, 9223372036854775807]"};
          },
          read_json}},
        {"safetensors",
         {[] {
              return Seeds{adapter_file("adapter_model.safetensors"),
                           bytes_of(hugging_face(Folder::four_bit) + "/model.safetensors"), safetensors_of_types(),
                           R"({"a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}, "\u00e9": {"dtype": "F16",
                              "shape": [16], "data_offsets": [32, 64]}, "__metadata__": {"format": "pt"}})"};
          },
          read_safetensors}},
        {"gguf",
         {[] {
              Seeds seeds = scaled_models();
              for (const std::string& family : tiny::every_family())
                  seeds.push_back(gguf_of(*tiny::make(smallest(family))));
              return seeds;
          },
          read_gguf}},
        {"gguf_parts",
         {[] {
              return Seeds{part_of_model(0), part_of_model(1)};
          },
          read_parts}},
        {"gguf_four_bit",
         {[] {
              Seeds seeds;
              for (const DType type : {DType::nf4, DType::fp4})
                  for (const bool twice : {true, false})
                      seeds.push_back(gguf_of(*convert_model(*small_model(true), type, twice)));
              return seeds;
          },
          read_gguf}},
        {"gguf_nvfp4",
         {[] {
              // the layers of a folder that have blocks of GGUF, and those that have none as bf16
              const auto m = std::make_shared<ModelImpl>(*tiny::load(hugging_face(Folder::float8)));
              for_each_weight(*m, [](const Row&, WeightPtr& w) {
                  if (w->dtype == DType::f8_e4m3) w = std::make_shared<const Weight>(convert_weight(*w, DType::bf16));
              });
              return Seeds{gguf_of(*m)};
          },
          read_gguf}},
        {"vocabulary",
         {[] {
              Seeds seeds = written_vocabularies();
              for (const bool spm : {true, false}) seeds.push_back(vocabulary(spm));
              seeds.push_back(vocabulary(true, true));
              return seeds;
          },
          read_vocabulary}},
        {"adapter_gguf",
         {[] {
              save_lora_gguf(*create_lora(model(), {.rank = 2, .modules = "q_proj,down_proj"}),
                             folder() + "/adapter-sample.gguf");
              return Seeds{bytes_of(folder() + "/adapter-sample.gguf")};
          },
          [](std::string_view bytes) { load_lora(model(), put("adapter.gguf", bytes)); }}},
    };
}

}  // namespace fuzz
