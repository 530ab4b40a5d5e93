// synthetic.cpp - random models. Reading and writing GGUF is the library's business, so its own writer is included (it
// is not part of the public header) instead of a second one.
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
    {"360m", 32, 960, 15, 5, 2560, 49152, 8192, 100000},       // SmolLM2-360M
    {"1b", 16, 2048, 32, 8, 8192, 128256, 131072, 500000},     // Llama-3.2-1B
    {"3b", 28, 3072, 24, 8, 8192, 128256, 131072, 500000},     // Llama-3.2-3B
    {"7b", 32, 4096, 32, 32, 11008, 32000, 4096, 10000},       // Llama-2-7B
    {"8b", 32, 4096, 32, 8, 14336, 128256, 131072, 500000},    // Llama-3.1-8B
    {"13b", 40, 5120, 40, 40, 13824, 32000, 4096, 10000},      // Llama-2-13B
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

// A block of random bytes is a block of random weights once its scales are sane: two bytes each, where the layout of
// the type has them (src/tensor/blocks.cpp), set so that activations stay of order one. Dense numbers get an exponent
// near 2^-7 and keep a random sign.
struct BlockShape {
    qlora::DType type;
    // at this byte of the block, this half; -1: no more of them
    struct Half { int64_t at = -1; uint16_t bits = 0; } halves[2];
};

static constexpr BlockShape block_shapes[] = {
    {qlora::DType::q4_0, {{0, 0x1C00}}},
    {qlora::DType::q4_1, {{0, 0x1C00}, {2, 0xA800}}},    // 2^-8; 2^-8 and -2^-5
    {qlora::DType::q5_0, {{0, 0x1800}}},
    {qlora::DType::q5_1, {{0, 0x1800}, {2, 0xA800}}},
    {qlora::DType::q8_0, {{0, 0x0C00}}},
    {qlora::DType::q2_k, {{80, 0x1000}, {82, 0x1000}}},
    {qlora::DType::q3_k, {{108, 0x0C00}}},
    {qlora::DType::q4_k, {{0, 0x0800}, {2, 0x0800}}},
    {qlora::DType::q5_k, {{0, 0x0800}, {2, 0x0800}}},
    {qlora::DType::q6_k, {{208, 0x0400}}},
    {qlora::DType::iq4_nl, {{0, 0x0800}}},
    {qlora::DType::iq4_xs, {{0, 0x0400}}},
    {qlora::DType::mxfp4, {}},
    {qlora::DType::f16, {}},
    {qlora::DType::bf16, {}},
    {qlora::DType::f32, {}},
};

std::vector<std::string> synthetic_types() {
    std::vector<std::string> names{"nf4", "fp4"};
    for (const BlockShape& b : block_shapes) names.emplace_back(qlora::name_of(b.type));
    return names;
}

static const BlockShape& shape_of(qlora::DType type) {
    for (const BlockShape& b : block_shapes) if (b.type == type) return b;
    throw qlora::Error(qlora::Errc::argument, "no synthetic weights of type " + std::string(qlora::name_of(type)));
}

// What files of such a type hold where a row is no multiple of its 256: the stock tool's choice.
static qlora::DType fitting(qlora::DType type, int64_t cols) {
    using qlora::DType;
    if (cols % qlora::type_info(type).block == 0) return type;
    switch (type) {
        case DType::q4_k: return DType::q5_0;
        case DType::q5_k: return DType::q5_1;
        case DType::q6_k: return DType::q8_0;
        default: return DType::iq4_nl;
    }
}

static void make_sane(const BlockShape& shape, uint8_t* block) {
    for (const auto& [at, half] : shape.halves) {
        if (at < 0) break;
        block[at] = uint8_t(half);
        block[at + 1] = uint8_t(half >> 8);
    }
    if (shape.type == qlora::DType::mxfp4) block[0] = 120;             // 2^(120 - 128)
    if (shape.type == qlora::DType::f16) block[1] = (block[1] & 0x83) | 0x20;
    if (shape.type == qlora::DType::bf16) block[0] &= 0x7F, block[1] = (block[1] & 0x80) | 0x3C;
    if (shape.type == qlora::DType::f32) block[2] &= 0x7F, block[3] = (block[3] & 0x80) | 0x3C;
}

static void write_blocks(qlora::AtomicFile& file, const BlockShape& shape, int64_t blocks, uint64_t seed) {
    constexpr int64_t batch = 4096;
    const int64_t block = qlora::type_info(shape.type).bytes;
    std::vector<uint8_t> bytes(size_t(block * batch + 8));
    uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (int64_t done = 0; done < blocks; done += batch) {
        const int64_t count = std::min(batch, blocks - done);
        for (int64_t i = 0; i < count * block; i += 8) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            std::memcpy(&bytes[size_t(i)], &state, 8);
        }
        for (int64_t i = 0; i < count; ++i) make_sane(shape, &bytes[size_t(i * block)]);
        file.write(bytes.data(), count * block);
    }
}

static void add_matrix(GgufWriter& writer, const std::string& name, qlora::DType wanted, int64_t out, int64_t in) {
    const qlora::DType type = fitting(wanted, in);
    const qlora::TypeInfo& info = qlora::type_info(type);
    const int64_t blocks = out * in / info.block;
    const uint64_t seed = writer.tensors.size() + 1;
    const BlockShape& shape = shape_of(type);
    writer.add({name, info.ggml, {out, in}, blocks * info.bytes, [blocks, seed, &shape](qlora::AtomicFile& file) {
                    write_blocks(file, shape, blocks, seed);
                }});
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

static qlora::DType stored_type(const std::string& type) {         // nf4 and fp4 are made when the model is loaded
    for (const BlockShape& b : block_shapes) if (type == qlora::name_of(b.type)) return b.type;
    return qlora::DType::q4_0;
}

std::string synthetic_model(const std::string& name, const std::string& type_name, const std::string& folder) {
    const LlamaShape* shape = nullptr;
    for (const LlamaShape& candidate : shapes) if (name == candidate.name) shape = &candidate;
    if (!shape) throw qlora::Error(qlora::Errc::argument, "no synthetic shape " + name);
    const qlora::DType type = stored_type(type_name);
    const std::string path =
        (std::filesystem::path(folder) / ("synthetic-" + name + '-' + std::string(qlora::name_of(type)) + ".gguf"))
            .string();
    if (std::filesystem::exists(path)) return path;
    std::filesystem::create_directories(folder);

    GgufWriter writer;
    set_llama(writer, *shape);
    add_vocabulary(writer, shape->vocabulary);

    const int64_t kv = shape->hidden / shape->heads * shape->kv_heads;
    add_matrix(writer, "token_embd.weight", type, shape->vocabulary, shape->hidden);
    add_ones(writer, "output_norm.weight", shape->hidden);
    for (int64_t layer = 0; layer < shape->layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + '.';
        add_ones(writer, block + "attn_norm.weight", shape->hidden);
        add_matrix(writer, block + "attn_q.weight", type, shape->hidden, shape->hidden);
        add_matrix(writer, block + "attn_k.weight", type, kv, shape->hidden);
        add_matrix(writer, block + "attn_v.weight", type, kv, shape->hidden);
        add_matrix(writer, block + "attn_output.weight", type, shape->hidden, shape->hidden);
        add_ones(writer, block + "ffn_norm.weight", shape->hidden);
        add_matrix(writer, block + "ffn_gate.weight", type, shape->feed_forward, shape->hidden);
        add_matrix(writer, block + "ffn_up.weight", type, shape->feed_forward, shape->hidden);
        add_matrix(writer, block + "ffn_down.weight", type, shape->hidden, shape->feed_forward);
    }
    writer.write(path);
    return path;
}

}  // namespace program
