// decoder.h - the transformer as a graph: built once for a number of rows, then run with new inputs.
//
// Rows are tokens in one flat stream: documents of a packed or batched micro-batch lie one after another and do not see
// each other, because row t attends to the keys [first[t], last[t]) only. Padding rows carry token 0, target -1 and an
// empty range.
#pragma once
#include "src/model/lora.h"

namespace qlora { inline namespace QLORA_ABI {

struct KvCache {    // one buffer a layer and side: {kv_heads, capacity, head_dim} of `type`
    int64_t capacity = 0, used = 0;
    DType type = DType::f32;
    std::vector<BufferRef> keys, values;
    int64_t bytes() const {
        int64_t sum = 0;
        for (const auto* side : {&keys, &values})
            for (const BufferRef& buffer : *side) sum += buffer->bytes;
        return sum;
    }
};
// What keys and values are held in by default: bf16 where the embedding is stored so, else f16, unless the backend
// chooses another.
DType cache_type(const ModelImpl&);
KvCache make_cache(const ModelImpl&, int64_t capacity, DType type = DType::f32);
// Error{memory} if the backend has not as much free
void require_memory(const BackendImpl&, int64_t bytes, const char* what, const char* remedy);

struct DecoderSpec {
    int64_t rows = 0;
    enum class Output { logits, loss, hidden } output = Output::logits;
    int64_t logit_rows = 0;                            // logits: of how many rows (chosen at run time), 0 = all
    int64_t candidates = 0;                            // logits: so many of the best of each row are chosen there
    const KvCache* cache = nullptr;                    // keys and values are stored there and read from there
    bool backward = false;                             // loss only: gradients are added to `gradients`
    bool weighted = false;                             // ... of each row's loss times its weight
    bool checkpoint = false;
    int64_t kept_layers = 0;                           // checkpoint: so many of the last layers are not recomputed,
    bool light = false;                                // ... but for norms and gated products
    BufferRef apart = {};                              // checkpoint: inputs_apart() of the largest graph, for theirs
    int64_t loss_rows = 0;                             // of logits at a time; 0 = as the backend chooses
    bool dropout = false;
    bool noise = false;                                // DecoderBatch::noise is added to the embeddings
    uint64_t seed = 0;                                 // of the dropout
    BufferRef gradients = {};                          // flat, the layout of LoraImpl::values
};

// Bytes of inputs that wait in DecoderSpec::apart, rows of f32: of the halves of all layers that are recomputed, but
// for one that would be fetched again at once.
int64_t inputs_apart(const Config&, int64_t rows, int64_t kept_layers);

struct DecoderBatch {                                  // what a run is fed; every vector has spec.rows entries
    std::vector<int32_t> tokens, positions, first, last;
    std::vector<int32_t> cache_rows;                   // with a cache: where row t's key goes, -1 = nowhere
    std::vector<int32_t> lengths;                      // with a cache: tokens of row t's text (see turns_long)
    std::vector<int32_t> targets;                      // loss: the id to predict, -1 = not trained
    std::vector<int32_t> logit_rows;                   // logits: which rows
    std::vector<float> weights;                        // weighted: of each row's loss
    std::vector<float> noise;                          // noise: {rows, hidden}
    uint64_t dropout_step = 0;
};

class Decoder {
public:
    Decoder(std::shared_ptr<const ModelImpl>, const LoraImpl* lora, const DecoderSpec&);
    const DecoderSpec& spec() const { return spec_; }
    void run(const DecoderBatch&);
    std::vector<float> logits() const;                 // [logit_rows, vocabulary]
    std::vector<float> logits_of(int64_t row) const;   // of one of them
    // The same where they lie, until the next run: empty where they have to be downloaded.
    std::span<const float> logits_here(int64_t row) const;
    std::vector<float> candidates() const;             // [logit_rows, 2, candidates]: scores and ids, the best first
    std::vector<float> nll() const;                    // [rows]; 0 where the target is negative
    std::vector<float> hidden() const;                 // [rows, hidden], behind the final norm
    int64_t arena_bytes() const;                       // the plan's peak
    GraphImpl& graph() { return *graph_; }
private:
    DecoderSpec spec_;
    std::unique_ptr<GraphImpl> graph_;
    std::shared_ptr<const ModelImpl> model_;
    const LoraImpl* lora_;                             // the caller keeps it
    bool halves_ = false;                              // the graph reads LoraImpl::halves
    BufferRef halves() const;
    void build(BufferRef halves);
    void write_long(const DecoderBatch&);
    Tensor tokens_, positions_, first_, last_, window_first_, cache_rows_, targets_, logit_rows_;
    Tensor short_positions_, long_positions_;          // longrope: 0 for rows of the other kind
    Tensor logits_, nll_, hidden_;                     // one of them
    Tensor candidates_;
    Tensor weights_, noise_;
};

// A batch of documents laid one after another; rows >= the sum of their lengths, the rest is padding.
struct Document {
    std::span<const Token> tokens;
    std::span<const uint8_t> trained;                  // may be empty: all
    float weight = 1;
};
DecoderBatch lay_out(std::span<const Document>, int64_t rows);

// Rows of a batch that reads and writes a cache: tokens from `position` on of a text whose keys begin at cache row
// `begin`, and which has `length` tokens (0: it ends with these). Then pad(), to the rows of the decoder.
void append_cached(DecoderBatch&, std::span<const Token> tokens, int64_t position, int64_t begin, int64_t length = 0);
void pad(DecoderBatch&, int64_t rows);
// Longrope: whether a text of so many tokens turns by the long list. Keys in a cache are turned already: where a text
// outgrows the original context they are computed anew.
bool turns_long(const Config&, int64_t tokens);
// Rows a run: one for generation, and chunks for prompts. Larger chunks read the weights less often; beyond 128 rows a
// product is bound by arithmetic anyway and padding the last chunk costs more.
constexpr int64_t most_chunk = 128;
int64_t chunk_of(int64_t left);                        // 1, 16 or 128

}}  // namespace qlora
