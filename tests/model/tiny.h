// tiny.h - small random models in memory, and one-line forward passes, for the tests of the model floor.
#pragma once
#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/model/decoder.h"
#include "src/model/family.h"

#include <algorithm>

namespace tiny {

using namespace qlora;

inline std::shared_ptr<BackendImpl> backend(int threads = 1) {
    static std::shared_ptr<BackendImpl> one = make_cpu_backend(1, Compute::f32);
    return threads == 1 ? one : make_cpu_backend(threads, Compute::f32);
}

inline std::shared_ptr<ModelImpl> load(const std::string& path, std::optional<DType> quantize = {},
                                       bool double_quant = true) {
    const LoadOptions options{.backend = Backend(backend()), .quantize = quantize, .double_quant = double_quant};
    return is_folder(path) ? load_hf_model(path, options) : load_gguf_model(path, options);
}

struct Spec {
    std::string family = "llama";
    int64_t window = 0, layers = 2, hidden = 32, heads = 4, kv_heads = 2, head_dim = 8, feed_forward = 48,
            vocabulary = 40;
    bool tied = false, adjacent = false;
    uint64_t seed = 1;
};

inline WeightPtr random(std::string name, Shape shape, float size, Rng& rng, float mean = 0) {
    std::vector<float> values(size_t(elements_of(shape)));
    for (float& v : values) v = mean + size * rng.normal();
    return std::make_shared<const Weight>(dense_weight(std::move(name), std::move(shape), std::move(values)));
}

inline std::shared_ptr<ModelImpl> make(const Spec& s) {
    auto m = std::make_shared<ModelImpl>();
    Config& c = m->config;
    c.family = s.family;
    c.vocabulary = s.vocabulary;
    c.hidden = s.hidden;
    c.layers = s.layers;
    c.heads = s.heads;
    c.kv_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.feed_forward = s.feed_forward;
    c.context = 128;
    c.rotated = s.head_dim;
    c.window = s.window;
    c.tied = s.tied;
    c.adjacent_pairs = s.adjacent;
    set_frequencies(c, 10000, {}, "tiny");
    m->path = "tiny";
    m->backend = backend();
    Rng rng{s.seed, 0, 0};
    const Family& family = *family_named(s.family);
    m->embedding = random("token_embd.weight", {c.vocabulary, c.hidden}, 1, rng);
    m->final_norm = random("output_norm.weight", {c.hidden}, 0.1f, rng, 1);
    m->head = s.tied ? m->embedding : random("output.weight", {c.vocabulary, c.hidden}, 0.3f, rng);
    for (int64_t i = 0; i < c.layers; ++i) {
        LayerWeights l;
        l.attention_norm = random(str("blk.", i, ".attn_norm.weight"), {c.hidden}, 0.1f, rng, 1);
        l.feed_forward_norm = random(str("blk.", i, ".ffn_norm.weight"), {c.hidden}, 0.1f, rng, 1);
        if (family.qk_norm) {
            l.q_norm = random(str("blk.", i, ".attn_q_norm.weight"), {c.head_dim}, 0.1f, rng, 1);
            l.k_norm = random(str("blk.", i, ".attn_k_norm.weight"), {c.head_dim}, 0.1f, rng, 1);
        }
        for (int k = 0; k < module_count; ++k) {
            const Shape shape = linear_shape(c, Module(k));
            l.linear[k] = random(gguf_name(i, Module(k), "weight"), shape, 0.15f, rng);
            if (family.qkv_bias && k < 3) l.bias[k] = random(gguf_name(i, Module(k), "bias"), {shape[0]}, 0.1f, rng);
        }
        m->layers.push_back(std::move(l));
    }
    return m;
}

inline std::vector<float> logits(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora,
                                 std::span<const Token> ids) {
    Decoder d(model, lora, {.rows = int64_t(ids.size())});
    d.run(lay_out(std::vector<Document>{{ids, {}}}, int64_t(ids.size())));
    return d.logits();
}

inline std::vector<float> nll(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora,
                              std::span<const Token> ids) {
    Decoder d(model, lora, {.rows = int64_t(ids.size()), .output = DecoderSpec::Output::loss});
    d.run(lay_out(std::vector<Document>{{ids, {}}}, int64_t(ids.size())));
    return d.nll();
}

}  // namespace tiny
