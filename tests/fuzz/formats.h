// formats.h - fuzz targets of the container formats: JSON, safetensors, GGUF as models, vocabularies and adapters, and
// 4-bit tensors in it.
#pragma once
#include "tests/fuzz/samples.h"

namespace fuzz {

inline void read_json(std::string_view bytes) {
    const std::string printed = Json::parse(bytes, "fuzz").dump();
    if (Json::parse(printed, "again").dump() != printed) std::abort();
}

inline void read_safetensors(std::string_view bytes) {
    const auto file = SafeTensors::open(put("x.safetensors", bytes));
    for (const SafeTensor& t : file->tensors()) {
        if (t.dtype == "F32" || t.dtype == "F64") file->floats(t);
        if (t.dtype == "F16" || t.dtype == "BF16") file->weight(t).decoded();
    }
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
                           bytes_of(hugging_face(Folder::four_bit) + "/model.safetensors")};
          },
          read_safetensors}},
        {"gguf",
         {[] {
              Seeds seeds;
              for (const char* family : {"llama", "qwen2", "qwen3", "gemma2", "starcoder2", "olmo", "deci", "phi3", "gpt2", "gpt_bigcode", "gpt_neox"})
                  seeds.push_back(gguf_of(*tiny::make({.family = family,
                                                       .layers = 1,
                                                       .hidden = 8,
                                                       .heads = 2,
                                                       .kv_heads = 1,
                                                       .head_dim = 4,
                                                       .feed_forward = 8,
                                                       .vocabulary = 8,
                                                       .tied = true})));
              return seeds;
          },
          read_gguf}},
        {"gguf_four_bit",
         {[] {
              Seeds seeds;
              for (const DType type : {DType::nf4, DType::fp4})
                  for (const bool twice : {true, false})
                      seeds.push_back(gguf_of(*convert_model(*small_model(true), type, twice)));
              return seeds;
          },
          read_gguf}},
        {"vocabulary",
         {[] {
              return Seeds{vocabulary(true), vocabulary(false)};
          },
          [](std::string_view bytes) {
              use(*load_tokenizer(put("vocabulary.gguf", bytes)), "Hello <s> w\xC3\xB6rld  1234");
          }}},
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
