// synthetic.cpp - random models. Reading and writing GGUF is the library's business, so its own writer is included (it is not part of the
// public header) instead of a second one.
#include "examples/common/synthetic.h"

#include "src/base/file.h"
#include "src/format/gguf.h"

#include <cstring>
#include <filesystem>

namespace program {

using qlora::GgufWriter;
using qlora::Json;

struct LlamaShape {
    const char* name;
    int64_t layers, hidden, heads, kv_heads, feed_forward, vocabulary, context;
    double rope_base;
};

static const LlamaShape shapes[] = {
    {"tiny", 2, 64, 4, 2, 192, 512, 1024, 10000},
    {"135m", 30, 576, 9, 3, 1536, 49152, 8192, 100000},        // SmolLM2-135M
    {"1b", 16, 2048, 32, 8, 8192, 128256, 131072, 500000},     // Llama-3.2-1B
};

std::vector<std::string> synthetic_shapes() {
    std::vector<std::string> names;
    for (const LlamaShape& shape : shapes) names.push_back(shape.name);
    return names;
}

static void set_llama(GgufWriter& writer, const LlamaShape& shape) {
    writer.set("general.architecture", GgufWriter::Type::string, "llama");
    writer.set("general.name", GgufWriter::Type::string, std::string("synthetic-") + shape.name);
    writer.set("llama.block_count", GgufWriter::Type::u32, shape.layers);
    writer.set("llama.context_length", GgufWriter::Type::u32, shape.context);
    writer.set("llama.embedding_length", GgufWriter::Type::u32, shape.hidden);
    writer.set("llama.feed_forward_length", GgufWriter::Type::u32, shape.feed_forward);
    writer.set("llama.attention.head_count", GgufWriter::Type::u32, shape.heads);
    writer.set("llama.attention.head_count_kv", GgufWriter::Type::u32, shape.kv_heads);
    writer.set("llama.attention.layer_norm_rms_epsilon", GgufWriter::Type::f32, 1e-5);
    writer.set("llama.rope.dimension_count", GgufWriter::Type::u32, shape.hidden / shape.heads);
    writer.set("llama.rope.freq_base", GgufWriter::Type::f32, shape.rope_base);
    writer.set("llama.vocab_size", GgufWriter::Type::u32, shape.vocabulary);
}

// Q4_0: 32 weights a block, a half-precision scale and 16 bytes of nibbles. The scale is 2^-8, so that activations stay of order one.
static void write_blocks(qlora::AtomicFile& file, int64_t blocks, uint64_t seed) {
    constexpr int64_t block = 18, batch = 4096;
    std::vector<uint8_t> bytes(size_t(block * batch));
    uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (int64_t done = 0; done < blocks; done += batch) {
        const int64_t count = std::min(batch, blocks - done);
        for (int64_t i = 0; i < count; ++i) {
            uint8_t* at = &bytes[size_t(i * block)];
            at[0] = 0x00;                              // 2^-8 as a half: exponent 7, mantissa 0
            at[1] = 0x1C;
            for (int word = 0; word < 2; ++word) {
                state ^= state << 13, state ^= state >> 7, state ^= state << 17;
                std::memcpy(at + 2 + word * 8, &state, 8);
            }
        }
        file.write(bytes.data(), count * block);
    }
}

static void add_matrix(GgufWriter& writer, const std::string& name, int64_t out, int64_t in) {
    const int64_t blocks = out * in / 32;
    const uint64_t seed = writer.tensors.size() + 1;
    writer.add({name, 2, {out, in}, blocks * 18, [blocks, seed](qlora::AtomicFile& file) { write_blocks(file, blocks, seed); }});
}

static void add_ones(GgufWriter& writer, const std::string& name, int64_t count) {
    writer.add({name, 0, {count}, count * 4, [count](qlora::AtomicFile& file) {
        const std::vector<float> ones(static_cast<size_t>(count), 1.0f);
        file.write(ones.data(), count * 4);
    }});
}

// A vocabulary of single bytes, then words that nothing spells: every byte of a text is one token.
static void add_vocabulary(GgufWriter& writer, int64_t size) {
    using Type = GgufWriter::Type;
    Json::Array tokens, scores, kinds;
    for (int64_t i = 0; i < size; ++i) {
        char byte[16];
        std::snprintf(byte, sizeof byte, i < 259 ? "<0x%02X>" : "\x01%u", unsigned(i < 259 ? i - 3 : i));
        tokens.push_back(i == 0 ? Json("<unk>") : i == 1 ? Json("<s>") : i == 2 ? Json("</s>") : Json(byte));
        scores.push_back(Json(i < 259 ? 0.0 : -double(i)));
        kinds.push_back(Json(int64_t(i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1)));     // unknown, control, byte, normal
    }
    writer.set("tokenizer.ggml.model", Type::string, "llama");
    writer.set_array("tokenizer.ggml.tokens", Type::string, std::move(tokens));
    writer.set_array("tokenizer.ggml.scores", Type::f32, std::move(scores));
    writer.set_array("tokenizer.ggml.token_type", Type::i32, std::move(kinds));
    writer.set("tokenizer.ggml.bos_token_id", Type::u32, int64_t(1));
    writer.set("tokenizer.ggml.eos_token_id", Type::u32, int64_t(2));
}

std::string synthetic_model(const std::string& name, const std::string& folder) {
    const LlamaShape* shape = nullptr;
    for (const LlamaShape& candidate : shapes) if (name == candidate.name) shape = &candidate;
    if (!shape) throw qlora::Error(qlora::Errc::argument, "no synthetic shape " + name);
    const std::string path = (std::filesystem::path(folder) / ("synthetic-" + name + ".gguf")).string();
    if (std::filesystem::exists(path)) return path;
    std::filesystem::create_directories(folder);

    GgufWriter writer;
    set_llama(writer, *shape);
    add_vocabulary(writer, shape->vocabulary);

    const int64_t kv = shape->hidden / shape->heads * shape->kv_heads;
    add_matrix(writer, "token_embd.weight", shape->vocabulary, shape->hidden);
    add_ones(writer, "output_norm.weight", shape->hidden);
    for (int64_t layer = 0; layer < shape->layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + '.';
        add_ones(writer, block + "attn_norm.weight", shape->hidden);
        add_matrix(writer, block + "attn_q.weight", shape->hidden, shape->hidden);
        add_matrix(writer, block + "attn_k.weight", kv, shape->hidden);
        add_matrix(writer, block + "attn_v.weight", kv, shape->hidden);
        add_matrix(writer, block + "attn_output.weight", shape->hidden, shape->hidden);
        add_ones(writer, block + "ffn_norm.weight", shape->hidden);
        add_matrix(writer, block + "ffn_gate.weight", shape->feed_forward, shape->hidden);
        add_matrix(writer, block + "ffn_up.weight", shape->feed_forward, shape->hidden);
        add_matrix(writer, block + "ffn_down.weight", shape->hidden, shape->feed_forward);
    }
    writer.write(path);
    return path;
}

}  // namespace program
