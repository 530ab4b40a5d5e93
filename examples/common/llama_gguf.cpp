// llama_gguf.cpp - the metadata of a Llama in a GGUF file.
#include "examples/common/llama_gguf.h"

#include "src/base/half.h"

namespace program {

using qlora::GgufWriter;
using qlora::Json;
using Type = GgufWriter::Type;

void set_llama(GgufWriter& writer, const LlamaShape& shape) {
    writer.set("general.architecture", Type::string, "llama");
    writer.set("general.name", Type::string, shape.name);
    writer.set("llama.block_count", Type::u32, shape.layers);
    writer.set("llama.context_length", Type::u32, shape.context);
    writer.set("llama.embedding_length", Type::u32, shape.hidden);
    writer.set("llama.feed_forward_length", Type::u32, shape.feed_forward);
    writer.set("llama.attention.head_count", Type::u32, shape.heads);
    writer.set("llama.attention.head_count_kv", Type::u32, shape.kv_heads);
    writer.set("llama.attention.layer_norm_rms_epsilon", Type::f32, 1e-5);
    writer.set("llama.rope.dimension_count", Type::u32, shape.hidden / shape.heads);
    writer.set("llama.rope.freq_base", Type::f32, shape.rope_base);
    writer.set("llama.vocab_size", Type::u32, shape.vocabulary);
}

void add_f32(GgufWriter& writer, const std::string& name, qlora::Shape shape, std::vector<float> values) {
    const int64_t bytes = int64_t(values.size()) * 4;
    writer.add({name, 0, std::move(shape), bytes, [values = std::move(values), bytes](qlora::AtomicFile& file) { file.write(values.data(), bytes); }});
}

void add_f16(GgufWriter& writer, const std::string& name, qlora::Shape shape, const std::vector<float>& values) {
    std::vector<uint16_t> halves;
    for (const float v : values) halves.push_back(qlora::f16_from_f32(v));
    const int64_t bytes = int64_t(halves.size()) * 2;
    writer.add({name, 1, std::move(shape), bytes, [halves = std::move(halves), bytes](qlora::AtomicFile& file) { file.write(halves.data(), bytes); }});
}

// Byte-level BPE writes every byte as a printable character: those of Latin-1 that print as themselves, the other 68 from U+0100 on.
static std::string printable(int byte) {
    const auto prints = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255); };
    int code = byte;
    if (!prints(byte)) {
        code = 256;
        for (int b = 0; b < byte; ++b) code += !prints(b);
    }
    if (code < 128) return std::string(1, char(code));
    return {char(0xC0 | code >> 6), char(0x80 | (code & 63))};
}

void set_byte_vocabulary(GgufWriter& writer, const std::vector<std::string>& control, int64_t bos, int64_t eos, const std::string& chat_template) {
    Json::Array tokens, kinds;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(printable(byte)), kinds.push_back(int64_t(1));
    for (const std::string& token : control) tokens.push_back(token), kinds.push_back(int64_t(3));
    writer.set("tokenizer.ggml.model", Type::string, "gpt2");
    writer.set("tokenizer.ggml.pre", Type::string, "gpt-2");
    writer.set_array("tokenizer.ggml.tokens", Type::string, std::move(tokens));
    writer.set_array("tokenizer.ggml.token_type", Type::i32, std::move(kinds));
    writer.set_array("tokenizer.ggml.merges", Type::string, {});
    writer.set("tokenizer.ggml.bos_token_id", Type::u32, bos);
    writer.set("tokenizer.ggml.eos_token_id", Type::u32, eos);
    if (!chat_template.empty()) writer.set("tokenizer.chat_template", Type::string, chat_template);
}

}  // namespace program
