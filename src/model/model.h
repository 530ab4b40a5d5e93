// model.h - what a loaded model is: a configuration that no longer knows its file format, the weights of every layer,
// the text side.
#pragma once
#include "src/graph/graph.h"
#include "src/model/metadata.h"
#include "src/model/tensors.h"
#include "src/text/tokenizer.h"

#include <array>
#include <mutex>

namespace qlora { inline namespace QLORA_ABI {

// How the rotary frequencies were stretched, as the source says it: only savers need it.
struct RopeScaling {
    enum class Kind { none, linear, yarn, llama3, longrope } kind = Kind::none;
    double factor = 1, original_context = 0;
    double attention_factor = 0;                       // magnitude; 0 = 1, with yarn 0.1 ln(factor) + 1
    double beta_fast = 32, beta_slow = 1;              // yarn
    bool truncate = true;                              // yarn: its bounds are whole pairs
    double low = 1, high = 4;                          // llama3
    std::vector<float> short_factors, long_factors;    // longrope: a divisor of each frequency
};

enum class Activation : uint8_t { silu, gelu_tanh, gelu };    // of the feed-forward; gelu_tanh: approximated
enum class Norm : uint8_t { rms, layer, layer_plain };         // plain: without weights
enum class QkNorms : uint8_t { none, heads, rows };    // of queries and keys: each head by itself, or all heads at once

struct Config {
    std::string family;    // Family::name: "llama", "qwen3", ...
    int64_t vocabulary = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, feed_forward = 0,
            context = 0;
    std::vector<int64_t> kv_heads_of;                  // by layer, where they differ: kv_heads is the most; else empty
    int64_t kv_heads_at(int64_t layer) const { return kv_heads_of.empty() ? kv_heads : kv_heads_of[size_t(layer)]; }
    float eps = 1e-5f;
    bool tied = false;                                 // the head is the embedding
    Activation activation = Activation::silu;
    bool gated = true;                                 // the feed-forward is act(gate) * up, not act(up)
    Norm norm = Norm::rms;
    bool norm_biases = true;                           // of Norm::layer
    bool pre_norms = true;                             // what attention and feed-forward get is normed
    bool post_norms = false;                           // what they give is normed, then added
    bool parallel = false;                             // both get the layer's own input, normed twice
    bool norms_from_one = false;    // norms multiply by 1 + w, and Hugging Face files hold w: here 1 + w is held
    QkNorms q_k_norms = QkNorms::none;
    float clip_qkv = 0;                                // queries, keys and values are clamped to +- this; 0 = not
    std::array<bool, module_count> biases{};           // which linear layers have one
    Names names;                                       // of its tensors in folders
    int64_t window = 0;                                // sliding attention: keys a query sees, 0 = all
    int64_t window_from_layer = 0;                     // the first layer that slides
    int64_t full_every = 0;    // every so-many-th layer (the 2nd, 4th, ...) sees all keys; 0 = none
    std::vector<uint8_t> sliding;                      // by layer, where no such rule says it; else empty
    bool slides(int64_t layer) const {
        if (!sliding.empty()) return window > 0 && sliding[size_t(layer)];
        return window > 0 && layer >= window_from_layer && (full_every == 0 || (layer + 1) % full_every != 0);
    }
    float embedding_scale = 1;                         // of the rows of the embedding
    bool scaled_lookup = false;                        // by the embedding itself: NEFTune's noise comes behind it
    float residual_scale = 1;                          // of what attention and feed-forward give
    float logit_scale = 1;                             // of the logits, before their cap
    bool learned_positions = false;                    // a row for each position is added to the embedding; no rotation
    float attention_scale = 0;                         // of the scores; 0 = 1 / sqrt(head_dim)
    float attention_cap = 0, logit_cap = 0;            // v becomes cap tanh(v / cap); 0 = none
    // Rotary embedding: everything that scaling schemes do ends up in inverse_frequencies {rotated / 2} and magnitude.
    int64_t rotated = 0;
    std::vector<uint8_t> turned;                       // by layer: whether its queries and keys turn; empty = all do
    bool turns(int64_t layer) const { return !learned_positions && (turned.empty() || turned[size_t(layer)]); }
    bool adjacent_pairs = false;    // GGUF's "llama": q and k rows are stored permuted (see adapter_peft.cpp)
    // theta is the base that the frequencies began with: only savers need it
    float rope_theta = 10000, rope_magnitude = 1;
    std::vector<float> inverse_frequencies;
    // longrope: those of texts longer than rope_scaling.original_context; else empty
    std::vector<float> long_frequencies;
    RopeScaling rope_scaling;
    // Layers that slide may turn by plain frequencies of a base of their own; 0 and empty: they turn as all do.
    float sliding_theta = 0;
    std::vector<float> sliding_frequencies;
    // Queries of far positions are longer: times 1 + query_growth ln(1 + floor(position / query_growth_every)).
    float query_growth = 0;
    int64_t query_growth_every = 0;
    // the source scales frequencies with the length of longer texts, which this library does not
    bool dynamic_rope = false;
};

// Computed when it is first asked for, which reads all weights (fingerprint_of). A copy may become another model: it
// computes its own.
struct KeptFingerprint {
    KeptFingerprint() = default;
    KeptFingerprint(const KeptFingerprint&) {}
    KeptFingerprint& operator=(const KeptFingerprint&) = delete;
    std::mutex lock;
    std::optional<Json> value;
};

struct ModelImpl {
    std::string path;    // what it is called in messages and records; nobody opens it
    Config config;
    // By slot, null where the model has no such tensor; the head is the embedding's Weight when tied.
    std::array<WeightPtr, model_slots> own;
    std::vector<std::array<WeightPtr, layer_slots>> layers;
    WeightPtr& at(Slot s, int64_t layer = -1) {
        return int(s) < layer_slots ? layers.at(size_t(layer))[size_t(s)] : own[size_t(int(s) - layer_slots)];
    }
    const WeightPtr& at(Slot s, int64_t layer = -1) const {
        return int(s) < layer_slots ? layers.at(size_t(layer))[size_t(s)] : own[size_t(int(s) - layer_slots)];
    }
    std::shared_ptr<const TokenizerImpl> tokenizer;    // may be null: a model without a vocabulary runs on ids
    std::shared_ptr<BackendImpl> backend;
    std::shared_ptr<const Metadata> metadata = std::make_shared<const Metadata>();
    std::optional<DType> head;    // the type it was brought into, where the source has more bits
    std::vector<std::string> notes;    // what the files say that was not followed, or hold that was left out
    mutable KeptFingerprint fingerprint;

    // The weights of a linear layer before they were quantized, for adapters that start from them: as their file has
    // them, which stays mapped (and takes no memory that is missed). Of a layer that is as it was stored, those held.
    WeightPtr original(Slot linear, int64_t layer) const;
    Stored stored(Slot linear, int64_t layer) const;   // the same, which kernels may not be able to read: not aligned
    // Holds w there; `original` empty: nothing else is original there any more.
    void replace(Slot linear, int64_t layer, WeightPtr w, Stored original);
private:
    std::vector<std::array<Stored, module_count>> originals_;          // where they differ; maybe not aligned
};

// Few rows of an embedding are read at a time, unless it is the head too.
inline Placement placement_of(const Config& c, const Row& row) {
    return row.slot == Slot::embedding && !c.tied ? Placement::host : Placement::device;
}

// f(row, weight) for every tensor of a model; the weight may be replaced where the model is not const.
template <class Model, class F>
void for_each_weight(Model& model, const F& f) {
    for_each_tensor(model.config, [&](const Row& row, int64_t layer) { f(row, model.at(row.slot, layer)); });
}

// Loaders. They check every tensor against the configuration before using it; errors name file, tensor and field.
// as: instead of the family that the file names.
std::shared_ptr<ModelImpl> load_gguf_model(const Source&, const LoadOptions&,
                                           const struct Family* as = nullptr);
std::shared_ptr<ModelImpl> load_hf_model(const Source& folder, const LoadOptions&,
                                         const struct Family* as = nullptr);
// GGUF (vocabulary-only too), folder, tokenizer.json, tokenizer.model
std::shared_ptr<const TokenizerImpl> load_tokenizer(const Source&);
ModelInfo describe(const ModelImpl&);
// Error{argument} where a text is longer than the model's context: rotary positions beyond it were never trained, and
// with "dynamic" scaling the frequencies would have to change.
void check_context(const Config&, int64_t tokens, std::string_view what);

// The tokens of a dialogue and its loss mask through the model's own template (or the fallback).
Rendered render_chat(const TokenizerImpl&, std::span<const Message>, const RenderOptions&);

}}  // namespace qlora
