// synthetic.cpp - random models.
#include "examples/common/synthetic.h"

#include "examples/common/gguf_file.h"

#include <cstring>
#include <filesystem>

namespace program {

struct LlamaShape {
    const char* name;
    int64_t layers, hidden, heads, kv_heads, feed_forward, vocabulary, context;
    double rope_base;
    bool own_head = false;                             // beside the embedding
};

static const LlamaShape shapes[] = {
    {"tiny", 2, 64, 4, 2, 192, 512, 1024, 10000},
    {"135m", 30, 576, 9, 3, 1536, 49152, 8192, 100000},        // SmolLM2-135M
    {"360m", 32, 960, 15, 5, 2560, 49152, 8192, 100000},       // SmolLM2-360M
    {"1b", 16, 2048, 32, 8, 8192, 128256, 131072, 500000},     // Llama-3.2-1B
    {"3b", 28, 3072, 24, 8, 8192, 128256, 131072, 500000},     // Llama-3.2-3B
    {"7b", 32, 4096, 32, 32, 11008, 32000, 4096, 10000, true},       // Llama-2-7B
    {"8b", 32, 4096, 32, 8, 14336, 128256, 131072, 500000, true},    // Llama-3.1-8B
    {"13b", 40, 5120, 40, 40, 13824, 32000, 4096, 10000, true},      // Llama-2-13B
    {"14b", 48, 5120, 40, 8, 13824, 152064, 131072, 1e6, true},      // as Qwen2.5-14B, without biases
    {"32b", 64, 5120, 40, 8, 27648, 152064, 131072, 1e6, true},      // as Qwen2.5-32B
    {"33b", 60, 6656, 52, 52, 17920, 32000, 2048, 10000, true},      // LLaMA-33B
    {"65b", 80, 8192, 64, 64, 22016, 32000, 2048, 10000, true},      // LLaMA-65B
    {"70b", 80, 8192, 64, 8, 28672, 128256, 131072, 500000, true},   // Llama-3.1-70B
};

std::vector<std::string> synthetic_shapes() {
    std::vector<std::string> names;
    for (const LlamaShape& shape : shapes) names.push_back(shape.name);
    return names;
}

static void set_llama(GgufFile& file, const LlamaShape& shape) {
    file.set("general.architecture", std::string("llama"));
    file.set("general.name", std::string("synthetic-") + shape.name);
    file.set("llama.block_count", uint32_t(shape.layers));
    file.set("llama.context_length", uint32_t(shape.context));
    file.set("llama.embedding_length", uint32_t(shape.hidden));
    file.set("llama.feed_forward_length", uint32_t(shape.feed_forward));
    file.set("llama.attention.head_count", uint32_t(shape.heads));
    file.set("llama.attention.head_count_kv", uint32_t(shape.kv_heads));
    file.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    file.set("llama.rope.dimension_count", uint32_t(shape.hidden / shape.heads));
    file.set("llama.rope.freq_base", float(shape.rope_base));
    file.set("llama.vocab_size", uint32_t(shape.vocabulary));
}

// A block of random bytes is a block of random weights once its scales are sane: two bytes each, where GGUF's layout of
// the type has them, set so that activations stay of order one. Dense numbers get an exponent near 2^-7 and keep a
// random sign.
struct BlockShape {
    qlora::DType type;
    int32_t number;                                    // of the type in GGUF
    int64_t elements, bytes;                           // of a block
    // at this byte of the block, this half; -1: no more of them
    struct Half { int64_t at = -1; uint16_t bits = 0; } halves[2];
};

static constexpr BlockShape block_shapes[] = {
    {qlora::DType::q4_0, 2, 32, 18, {{0, 0x1C00}}},
    {qlora::DType::q4_1, 3, 32, 20, {{0, 0x1C00}, {2, 0xA800}}},    // 2^-8; 2^-8 and -2^-5
    {qlora::DType::q5_0, 6, 32, 22, {{0, 0x1800}}},
    {qlora::DType::q5_1, 7, 32, 24, {{0, 0x1800}, {2, 0xA800}}},
    {qlora::DType::q8_0, 8, 32, 34, {{0, 0x0C00}}},
    {qlora::DType::q2_k, 10, 256, 84, {{80, 0x1000}, {82, 0x1000}}},
    {qlora::DType::q3_k, 11, 256, 110, {{108, 0x0C00}}},
    {qlora::DType::q4_k, 12, 256, 144, {{0, 0x0800}, {2, 0x0800}}},
    {qlora::DType::q5_k, 13, 256, 176, {{0, 0x0800}, {2, 0x0800}}},
    {qlora::DType::q6_k, 14, 256, 210, {{208, 0x0400}}},
    {qlora::DType::iq4_nl, 20, 32, 18, {{0, 0x0800}}},
    {qlora::DType::iq4_xs, 23, 256, 136, {{0, 0x0400}}},
    {qlora::DType::mxfp4, 39, 32, 17, {}},
    {qlora::DType::f16, 1, 1, 2, {}},
    {qlora::DType::bf16, 30, 1, 2, {}},
    {qlora::DType::f32, 0, 1, 4, {}},
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
    if (cols % shape_of(type).elements == 0) return type;
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

static void write_blocks(std::ostream& out, const BlockShape& shape, int64_t blocks, uint64_t seed) {
    constexpr int64_t batch = 4096;
    const int64_t block = shape.bytes;
    std::vector<uint8_t> bytes(size_t(block * batch + 8));
    uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    for (int64_t done = 0; done < blocks; done += batch) {
        const int64_t count = std::min(batch, blocks - done);
        for (int64_t i = 0; i < count * block; i += 8) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            std::memcpy(&bytes[size_t(i)], &state, 8);
        }
        for (int64_t i = 0; i < count; ++i) make_sane(shape, &bytes[size_t(i * block)]);
        out.write(reinterpret_cast<const char*>(bytes.data()), count * block);
    }
}

static void add_matrix(GgufFile& file, const std::string& name, qlora::DType wanted, int64_t rows, int64_t cols) {
    const BlockShape& shape = shape_of(fitting(wanted, cols));
    const int64_t blocks = rows * cols / shape.elements;
    const uint64_t seed = file.tensors() + 1;
    file.add(name, shape.number, {rows, cols}, blocks * shape.bytes,
             [blocks, seed, &shape](std::ostream& out) { write_blocks(out, shape, blocks, seed); });
}

static void add_ones(GgufFile& file, const std::string& name, int64_t count) {
    file.add(name, shape_of(qlora::DType::f32).number, {count}, count * 4, [count](std::ostream& out) {
        const std::vector<float> ones(static_cast<size_t>(count), 1.0f);
        out.write(reinterpret_cast<const char*>(ones.data()), count * 4);
    });
}

// A vocabulary of single bytes, then words that nothing spells: every byte of a text is one token.
static void add_vocabulary(GgufFile& file, int64_t size) {
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<int32_t> kinds;
    for (int64_t i = 0; i < size; ++i) {
        char byte[16];
        std::snprintf(byte, sizeof byte, i < 259 ? "<0x%02X>" : "\x01%u", unsigned(i < 259 ? i - 3 : i));
        tokens.push_back(i == 0 ? "<unk>" : i == 1 ? "<s>" : i == 2 ? "</s>" : byte);
        scores.push_back(i < 259 ? 0.0f : -float(i));
        kinds.push_back(i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);                    // unknown, control, byte, normal
    }
    file.set("tokenizer.ggml.model", std::string("llama"));
    file.set("tokenizer.ggml.tokens", tokens);
    file.set("tokenizer.ggml.scores", scores);
    file.set("tokenizer.ggml.token_type", kinds);
    file.set("tokenizer.ggml.bos_token_id", uint32_t(1));
    file.set("tokenizer.ggml.eos_token_id", uint32_t(2));
}

static qlora::DType stored_type(const std::string& type) {         // nf4 and fp4 are made when the model is loaded
    for (const BlockShape& b : block_shapes) if (type == qlora::name_of(b.type)) return b.type;
    return qlora::DType::q4_0;
}

static std::string make_model(const std::string& name, const std::string& type_name, const std::string& folder,
                              bool outline) {
    const LlamaShape* shape = nullptr;
    for (const LlamaShape& candidate : shapes) if (name == candidate.name) shape = &candidate;
    if (!shape) throw qlora::Error(qlora::Errc::argument, "no synthetic shape " + name);
    const qlora::DType type = stored_type(type_name);
    const std::string path =
        (std::filesystem::path(folder) / ("synthetic-" + name + '-' + std::string(qlora::name_of(type)) + ".gguf"))
            .string();
    if (std::filesystem::exists(path)) return path;
    std::filesystem::create_directories(folder);

    GgufFile file;
    set_llama(file, *shape);
    add_vocabulary(file, shape->vocabulary);

    const int64_t kv = shape->hidden / shape->heads * shape->kv_heads;
    add_matrix(file, "token_embd.weight", type, shape->vocabulary, shape->hidden);
    add_ones(file, "output_norm.weight", shape->hidden);
    if (shape->own_head) add_matrix(file, "output.weight", type, shape->vocabulary, shape->hidden);
    for (int64_t layer = 0; layer < shape->layers; ++layer) {
        const std::string block = "blk." + std::to_string(layer) + '.';
        add_ones(file, block + "attn_norm.weight", shape->hidden);
        add_matrix(file, block + "attn_q.weight", type, shape->hidden, shape->hidden);
        add_matrix(file, block + "attn_k.weight", type, kv, shape->hidden);
        add_matrix(file, block + "attn_v.weight", type, kv, shape->hidden);
        add_matrix(file, block + "attn_output.weight", type, shape->hidden, shape->hidden);
        add_ones(file, block + "ffn_norm.weight", shape->hidden);
        add_matrix(file, block + "ffn_gate.weight", type, shape->feed_forward, shape->hidden);
        add_matrix(file, block + "ffn_up.weight", type, shape->feed_forward, shape->hidden);
        add_matrix(file, block + "ffn_down.weight", type, shape->hidden, shape->feed_forward);
    }
    outline ? file.write_outline(path) : file.write(path);
    return path;
}

std::string synthetic_model(const std::string& name, const std::string& type, const std::string& folder) {
    return make_model(name, type, folder, false);
}

std::string outline_of_model(const std::string& name, const std::string& type, const std::string& folder) {
    return make_model(name, type, folder, true);
}

}  // namespace program
