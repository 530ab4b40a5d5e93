// tiny.h - small random models in memory, and one-line forward passes, for the tests of the model floor.
#pragma once
#include "src/base/access.h"
#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/model/decoder.h"
#include "src/model/draft.h"
#include "src/model/family.h"

#include <algorithm>
#include <cmath>

namespace tiny {

using namespace qlora;

inline std::shared_ptr<BackendImpl> backend(int threads = 1) {
    static std::shared_ptr<BackendImpl> one = make_cpu_backend(1, Compute::f32);
    return threads == 1 ? one : make_cpu_backend(threads, Compute::f32);
}

inline std::shared_ptr<ModelImpl> load(const std::string& path, std::optional<DType> quantize = {},
                                       bool double_quant = true) {
    const LoadOptions options{
        .backend = handle_of<Backend>(backend()), .quantize = quantize, .double_quant = double_quant};
    return is_folder(path) ? load_hf_model(path, options) : load_gguf_model(path, options);
}

struct Spec {
    std::string family = "llama";
    int64_t window = 0, layers = 2, hidden = 32, heads = 4, kv_heads = 2, head_dim = 8, feed_forward = 48,
            vocabulary = 40;
    bool tied = false, adjacent = false;
    uint64_t seed = 1;
};

// All that there are: who loops over them sees the next one too.
inline std::vector<std::string> every_family() {
    std::vector<std::string> names;
    for (const Family* f : families()) names.emplace_back(f->name);
    return names;
}

// What a file of the family would say, every switch of it on; 2 layers are enough to have one of each kind.
inline void set_switches(Config& c, const Spec& s) {
    if (s.family.starts_with("gemma")) {
        c.embedding_scale = std::sqrt(float(c.hidden));
        c.attention_scale = float(1 / std::sqrt(double(c.head_dim)));
    }
    if (s.family == "gemma2" || s.family == "gemma3_text" || s.family == "olmo3") {
        c.window = s.window ? s.window : 5;
        std::vector<uint8_t> alternating;
        for (int64_t i = 0; i < c.layers; ++i) alternating.push_back(i % 2 == 0);
        set_sliding(c, std::move(alternating));
    }
    if (s.family == "gemma2") c.attention_cap = 5;
    if (s.family == "gemma2" || s.family == "gemma3_text") c.logit_cap = 3;
    if (s.family.starts_with("granite")) {
        c.embedding_scale = 1.5f;
        c.attention_scale = 0.3f;
        c.residual_scale = 0.5f;
        c.logit_scale = 0.25f;
    }
    if (s.family == "smollm3")
        for (int64_t i = 0; i < c.layers; ++i) c.turned.push_back((i + 1) % 4 != 0);
    if (s.family == "ministral3") {
        c.query_growth = 0.3f;
        c.query_growth_every = 4;
    }
}

inline WeightPtr random(std::string name, Shape shape, float size, Rng& rng, float mean = 0) {
    std::vector<float> values(size_t(elements_of(shape)));
    for (float& v : values) v = mean + size * rng.normal();
    return std::make_shared<const Weight>(dense_weight(std::move(name), std::move(shape), std::move(values)));
}

inline std::shared_ptr<ModelImpl> make(const Spec& s) {
    auto m = std::make_shared<ModelImpl>();
    Config& c = m->config;
    c = family_named(s.family)->start();
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
    set_switches(c, s);
    if (s.family == "starcoder2")
        for (int k = 0; k < module_count; ++k) c.biases[size_t(k)] = has(c, Module(k));
    if (s.family.ends_with("olmo")) c.clip_qkv = 2;
    if (s.family == "deci")
        for (int64_t i = 0; i < c.layers; ++i) c.kv_heads_of.push_back(i % 2 ? s.kv_heads : 1);
    if (s.family == "gpt2" || s.family == "gpt_neox") c.kv_heads = c.heads;
    if (s.family == "gpt_bigcode") c.kv_heads = 1;
    if (s.family == "gpt_neox")
        for (int k = 0; k <= int(Module::o_proj); ++k) c.biases[size_t(k)] = true;
    const Family::Head head = family_named(s.family)->gguf_head;
    c.tied = head == Family::Head::tied || (s.tied && head != Family::Head::own);
    c.adjacent_pairs = s.adjacent;
    set_frequencies(c, 10000, {}, "tiny");
    if (s.family == "gemma3_text") set_sliding_frequencies(c, 500, "tiny");
    m->path = "tiny";
    m->backend = backend();
    Rng rng{s.seed, 0, 0};
    m->layers.resize(size_t(c.layers));
    for_each_tensor(c, [&](const Row& row, int64_t layer) {
        const bool norm = row.kind == Kind::norm;
        const float size = norm || row.kind == Kind::bias ? 0.1f : row.kind == Kind::linear ? 0.15f : 1;
        m->at(row.slot, layer) = random(tensor_name(World::gguf, c, row, layer), shape_of(c, row, layer),
                                        row.slot == Slot::head ? 0.3f : size, rng, norm ? 1 : 0);
    });
    if (c.tied) m->at(Slot::head) = m->at(Slot::embedding);
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
