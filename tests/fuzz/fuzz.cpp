// fuzz.cpp - everything that reads a stranger's bytes, for libFuzzer: whatever comes in, the only way out is a result or qlora::Error.
//
//   make fuzz                                          (clang; the library with address and undefined-behaviour checks)
//   QLORA_FUZZ=gguf build/fuzz/fuzz CORPUS -max_total_time=600 -rss_limit_mb=4096
//
// QLORA_FUZZ names one of the readers below. An empty CORPUS folder is filled with valid inputs first.
#include "src/format/gguf.h"
#include "src/format/safetensors.h"
#include "src/run/dataset.h"
#include "tests/model/tiny.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <unistd.h>

namespace fuzz {

using namespace qlora;
namespace fs = std::filesystem;
using Seeds = std::vector<std::string>;

std::string folder() {
    static const std::string path = [] {
        const std::string p = (fs::temp_directory_path() / ("qlora_fuzz_" + std::to_string(getpid()))).string();
        fs::create_directories(p);
        return p;
    }();
    return path;
}

std::string put(const std::string& name, std::string_view bytes) {
    const std::string path = folder() + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
    return path;
}

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::shared_ptr<const ModelImpl> model() {
    static const auto m = tiny::make({.vocabulary = 300});
    return m;
}

// A byte-level vocabulary of its 256 bytes, a few merges and control tokens: small enough to mutate.
std::string tokenizer_json() {
    Json vocabulary = Json::Object{};
    for (int i = 0; i < 256; ++i) {
        const int c = (i >= 33 && i <= 126) || (i >= 161 && i != 173) ? i : 256 + i;
        std::string utf8;
        if (c < 128) utf8 = char(c);
        else utf8 = {char(0xC0 | c >> 6), char(0x80 | (c & 63))};
        vocabulary.set(utf8, int64_t(i));
    }
    vocabulary.set("he", int64_t(256)).set("ll", int64_t(257)).set("hell", int64_t(258));
    Json added = Json::Array{};
    for (const auto& [id, text] : {std::pair(259, "<|im_start|>"), std::pair(260, "<|im_end|>")})
        added.array().push_back(Json{}.set("id", int64_t(id)).set("content", text).set("special", true).set("single_word", false).set("lstrip", false).set("rstrip", false).set("normalized", false));
    const Json split = Json::parse(R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false})", "seed");
    const Json bytes = Json::parse(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})", "seed");
    Json model = Json{}.set("type", "BPE").set("dropout", Json()).set("unk_token", Json()).set("continuing_subword_prefix", Json()).set("end_of_word_suffix", Json());
    model.set("fuse_unk", false).set("byte_fallback", false).set("vocab", vocabulary).set("merges", Json(Json::Array{Json("h e"), Json("l l"), Json("he ll")}));
    return Json{}.set("version", "1.0").set("truncation", Json()).set("padding", Json()).set("added_tokens", added).set("normalizer", Json::parse(R"({"type": "NFC"})", "seed"))
        .set("pre_tokenizer", Json{}.set("type", "Sequence").set("pretokenizers", Json(Json::Array{split, bytes}))).set("post_processor", Json()).set("decoder", bytes).set("model", model).dump();
}

std::string round_trip(const TokenizerImpl& t, std::string_view text) {
    Tokens tokens;
    t.encode(text, tokens);
    return t.decode(tokens);
}

std::string spm_vocabulary() {                         // a GGUF file: control tokens, the 256 bytes, letters, one merge
    Json::Array tokens, scores, types;
    const auto add = [&](std::string text, double score, int type) {
        tokens.push_back(Json(std::move(text)));
        scores.push_back(Json(score));
        types.push_back(Json(int64_t(type)));
    };
    add("<unk>", 0, 2);
    add("<s>", 0, 3);
    add("</s>", 0, 3);
    for (int i = 0; i < 256; ++i) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", unsigned(i));
        add(name, 0, 6);
    }
    add("\xE2\x96\x81", -1, 1);
    for (const char c : {'H', 'e', 'l', 'o', 'r', 'd'}) add(std::string(1, c), -2, 1);
    add("ll", -1.5, 1);
    GgufWriter writer;
    using Type = GgufWriter::Type;
    writer.set("general.architecture", Type::string, "llama");
    writer.set("tokenizer.ggml.model", Type::string, "llama");
    writer.set_array("tokenizer.ggml.tokens", Type::string, std::move(tokens));
    writer.set_array("tokenizer.ggml.scores", Type::f32, std::move(scores));
    writer.set_array("tokenizer.ggml.token_type", Type::i32, std::move(types));
    writer.set("tokenizer.ggml.bos_token_id", Type::u32, int64_t(1));
    writer.set("tokenizer.ggml.eos_token_id", Type::u32, int64_t(2));
    const std::string path = folder() + "/seed.gguf";
    writer.write(path);
    return bytes_of(path);
}

std::shared_ptr<const TokenizerImpl> tokenizer() {
    static const auto t = load_tokenizer_json(Json::parse(tokenizer_json(), "seed"), Json(), "seed");
    return t;
}

const std::string& adapter() {                         // a PEFT folder
    static const std::string path = [] {
        const std::string p = folder() + "/adapter";
        save_lora_peft(*create_lora(model(), {.rank = 2}), p);
        return p;
    }();
    return path;
}

const std::string& hugging_face() {                    // a model folder
    static const std::string path = [] {
        const std::string p = folder() + "/hf";
        auto m = std::make_shared<ModelImpl>(*model());
        SafeTensorsWriter writer;
        const auto add = [&](const std::string& name, const WeightPtr& w) { writer.add(name, w->shape, w->decoded()); };
        add("model.embed_tokens.weight", m->embedding);
        add("model.norm.weight", m->final_norm);
        add("lm_head.weight", m->head);
        for (int64_t i = 0; i < m->config.layers; ++i) {
            add(str("model.layers.", i, ".input_layernorm.weight"), m->layers[size_t(i)].attention_norm);
            add(str("model.layers.", i, ".post_attention_layernorm.weight"), m->layers[size_t(i)].feed_forward_norm);
            for (int k = 0; k < module_count; ++k) add(hf_name(i, Module(k)) + ".weight", m->layers[size_t(i)].linear[k]);
        }
        fs::create_directories(p);
        writer.write(p + "/model.safetensors");
        return p;
    }();
    return path;
}

struct Reader {
    std::function<Seeds()> seeds;
    std::function<void(std::string_view)> read;
};

const std::map<std::string, Reader>& readers() {
    static const std::map<std::string, Reader> all{
        {"json", {[] { return Seeds{R"({"a": [1, -2.5e3, "x\u00e9\ud83d\ude00\n", null, true, {}]})"}; },
                  [](std::string_view bytes) {
                      const std::string printed = Json::parse(bytes, "fuzz").dump();
                      if (Json::parse(printed, "again").dump() != printed) std::abort();
                  }}},
        {"template", {[] { return Seeds{"{%- set ns = namespace(a=[1,'b',{'c': none}]) -%}{% for m in messages if m.role != 'x' %}{{ m['content'] | trim ~ '\\n' }}{% if loop.first and not m.x is defined %}"
                                        "{{ m.role.split('s')[0][::-1] }}{% elif true %}{% generation %}z{% endgeneration %}{% else %}{{ raise_exception('x') }}{% endif %}{% endfor %}"
                                        "{% macro f(a, b=1) %}{{ a | tojson(indent=2) }}{{ [b, 2] | join('-') }}{% endmacro %}{{ f(messages, b=range(3) | list | length) }}{{ strftime_now('%Y') }}"}; },
                      [](std::string_view bytes) {
                          static const Json variables = Json::parse(R"({"messages": [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo", "n": 1.5}], "add_generation_prompt": true})", "fuzz");
                          TemplateLimits limits;
                          limits.steps = 20000;
                          limits.output = 20000;
                          ChatTemplate::parse(bytes, "fuzz")->render(variables, limits);
                      }}},
        {"gguf", {[] {
                      Seeds seeds;
                      for (const char* family : {"llama", "qwen3"}) {
                          save_gguf_model(*tiny::make({.family = family, .layers = 1, .hidden = 8, .heads = 2, .kv_heads = 1, .head_dim = 4, .feed_forward = 8, .vocabulary = 8, .tied = true}), folder() + "/seed.gguf");
                          seeds.push_back(bytes_of(folder() + "/seed.gguf"));
                      }
                      return seeds;
                  },
                  [](std::string_view bytes) {
                      const auto m = tiny::load(put("model.gguf", bytes));
                      if (m->tokenizer) round_trip(*m->tokenizer, "Hello <s> w\xC3\xB6rld  1234");
                      if (m->config.vocabulary > 4 && describe(*m).parameters < 200000) tiny::logits(m, nullptr, Tokens{1, 2, 3});
                  }}},
        {"vocabulary", {[] { return Seeds{spm_vocabulary()}; },
                        [](std::string_view bytes) {
                            round_trip(*load_tokenizer(put("vocabulary.gguf", bytes)), "Hello <s> w\xC3\xB6rld  1234");
                        }}},
        {"safetensors", {[] { return Seeds{bytes_of(adapter() + "/adapter_model.safetensors")}; },
                         [](std::string_view bytes) {
                             const auto file = SafeTensors::open(put("x.safetensors", bytes));
                             for (const SafeTensor& t : file->tensors()) if (t.dtype == "F32") file->floats(t);
                         }}},
        {"tokenizer", {[] { return Seeds{tokenizer_json()}; },
                       [](std::string_view bytes) {
                           round_trip(*load_tokenizer_json(Json::parse(bytes, "fuzz"), Json(), "fuzz"), "Hello <|im_start|> w\xC3\xB6rld  1234\n\n\xF0\x9F\x98\x80 \xFF");
                       }}},
        {"text", {[] { return Seeds{"Hello <|im_start|> w\xC3\xB6rld  1234\n\n\xF0\x9F\x98\x80 \xFF"}; },
                  [](std::string_view bytes) {
                      if (round_trip(*tokenizer(), bytes).size() > 8 * bytes.size() + 8) std::abort();
                  }}},
        {"config", {[] {
                        return Seeds{R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                        "head_dim": 8, "intermediate_size": 48, "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}, "tie_word_embeddings": false, "hidden_act": "silu", "attention_bias": false, "torch_dtype": "float32"})",
                                     R"({"model_type": "mistral", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48,
                        "max_position_embeddings": 128, "sliding_window": 3, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "eos_token_id": [1, 2]})"};
                    },
                    [](std::string_view bytes) {
                        put("hf/config.json", bytes);
                        tiny::logits(tiny::load(hugging_face()), nullptr, Tokens{1, 2, 3});
                    }}},
        {"dataset", {[] {
                         return Seeds{"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"hello\"}]}\n", "{\"prompt\": \"a\", \"completion\": \"b\"}\n",
                                      "[{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}]", "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}]}\n", "{\"text\": \"abc\"}\n"};
                     },
                     [](std::string_view bytes) { load_dataset(put("data.jsonl", bytes), tokenizer(), {.context = 64}); }}},
        {"adapter_config", {[] { return Seeds{bytes_of(adapter() + "/adapter_config.json")}; },
                            [](std::string_view bytes) {
                                put("adapter/adapter_config.json", bytes);
                                load_lora(model(), adapter());
                            }}},
        {"adapter", {[] { return Seeds{bytes_of(adapter() + "/adapter_model.safetensors")}; },
                     [](std::string_view bytes) {
                         put("adapter/adapter_model.safetensors", bytes);
                         load_lora(model(), adapter());
                     }}},
    };
    return all;
}

const Reader& chosen() {
    static const Reader* reader = [] {
        const char* name = std::getenv("QLORA_FUZZ");
        const auto found = readers().find(name ? name : "");
        if (found != readers().end()) return &found->second;
        std::fprintf(stderr, "QLORA_FUZZ names the reader, one of:");
        for (const auto& [known, r] : readers()) std::fprintf(stderr, " %s", known.c_str());
        std::fprintf(stderr, "\n");
        std::exit(2);
    }();
    return *reader;
}

}  // namespace fuzz

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    const fuzz::Reader& reader = fuzz::chosen();
    fuzz::adapter();
    fuzz::hugging_face();
    for (int i = 1; i < *argc; ++i)
        if (const std::string corpus = (*argv)[i]; corpus[0] != '-' && std::filesystem::is_directory(corpus) && std::filesystem::is_empty(corpus)) {
            int number = 0;
            for (const std::string& seed : reader.seeds()) std::ofstream(corpus + "/seed" + std::to_string(number++), std::ios::binary) << seed;
            break;
        }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        fuzz::chosen().read({reinterpret_cast<const char*>(data), size});
    } catch (const qlora::Error&) {
    }
    return 0;
}
