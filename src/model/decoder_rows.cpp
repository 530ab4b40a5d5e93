// decoder_rows.cpp - what a run of the decoder gets: documents laid out as rows, tokens that go behind those in a
// cache, and the cache itself.
#include "src/model/decoder.h"

namespace qlora { inline namespace QLORA_ABI {

DType cache_type(const ModelImpl& model) {
    return model.backend->cache_type(model.at(Slot::embedding)->dtype == DType::bf16 ? DType::bf16 : DType::f16);
}

KvCache make_cache(const ModelImpl& model, int64_t capacity, DType type) {
    if (capacity < 1) fail(Errc::argument, "cache: the capacity must be at least 1, is ", capacity);
    if (type != DType::f32 && type != DType::f16 && type != DType::bf16 && type != DType::q8_0)
        fail(Errc::argument, "cache: keys and values are not held as ", name_of(type),
             "; choose f32, f16, bf16 or q8_0");
    const Config& c = model.config;
    const int64_t block = type_info(type).block;
    if (c.head_dim % block)
        fail(Errc::shape, "cache: a key has ", c.head_dim, " numbers, not whole blocks of ", block, " as ",
             name_of(type), " has; choose f16 or bf16");
    KvCache cache;
    cache.capacity = capacity;
    cache.type = type;
    // of one head of a layer, at most 2^14 of 2^14 numbers
    const int64_t head = checked_mul(capacity, bytes_of(type, c.head_dim), "cache");
    int64_t heads = 0;
    for (int64_t i = 0; i < c.layers; ++i) heads += c.kv_heads_at(i);
    require_memory(*model.backend, checked_mul(head, 2 * heads, "cache"), "the keys and values of the context",
                   "a smaller context");
    // One piece of memory, which large pages can fill: a text of 2000 tokens goes on 1.4 to 1.8 times as fast in them.
    const auto side_bytes = [&](int64_t layer) { return (head * c.kv_heads_at(layer) + 63) / 64 * 64; };
    int64_t total = 0, at = 0;
    for (int64_t i = 0; i < c.layers; ++i) total += 2 * side_bytes(i);
    const BufferRef all = model.backend->allocate(total);
    for (int64_t i = 0; i < c.layers; ++i)
        for (auto* side : {&cache.keys, &cache.values}) {
            side->push_back(slice(all, at, head * c.kv_heads_at(i)));
            at += side_bytes(i);
        }
    return cache;
}

DecoderBatch lay_out(std::span<const Document> documents, int64_t rows) {
    DecoderBatch batch;
    for (const Document& d : documents) {
        if (!d.trained.empty() && d.trained.size() != d.tokens.size())
            fail(Errc::argument, "decoder: a document has ", d.tokens.size(), " tokens and ", d.trained.size(),
                 " loss flags");
        const int32_t begin = int32_t(batch.tokens.size());
        for (size_t i = 0; i < d.tokens.size(); ++i) {
            batch.tokens.push_back(d.tokens[i]);
            batch.positions.push_back(int32_t(i));
            batch.first.push_back(begin);
            batch.last.push_back(begin + int32_t(i) + 1);
            const bool trained = i + 1 < d.tokens.size() && (d.trained.empty() || d.trained[i + 1]);
            batch.targets.push_back(trained ? d.tokens[i + 1] : -1);
            batch.weights.push_back(d.weight);
        }
    }
    if (int64_t(batch.tokens.size()) > rows)
        fail(Errc::argument, "decoder: the documents have ", batch.tokens.size(), " tokens, there are ", rows, " rows");
    for (std::vector<int32_t>* v : {&batch.tokens, &batch.positions, &batch.first, &batch.last})
        v->resize(size_t(rows), 0);
    batch.targets.resize(size_t(rows), -1);
    batch.weights.resize(size_t(rows), 0.0f);
    return batch;
}

bool turns_long(const Config& c, int64_t tokens) {
    return !c.long_frequencies.empty() && double(tokens) > c.rope_scaling.original_context;
}

void append_cached(DecoderBatch& batch, std::span<const Token> tokens, int64_t position, int64_t begin,
                   int64_t length) {
    if (length == 0) length = position + int64_t(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
        const int64_t at = position + int64_t(i);
        batch.tokens.push_back(tokens[i]);
        batch.positions.push_back(int32_t(at));
        batch.cache_rows.push_back(int32_t(begin + at));
        batch.lengths.push_back(int32_t(length));
        batch.first.push_back(int32_t(begin));
        batch.last.push_back(int32_t(begin + at + 1));
    }
}

void pad(DecoderBatch& batch, int64_t rows) {
    for (std::vector<int32_t>* v : {&batch.tokens, &batch.positions, &batch.first, &batch.last, &batch.lengths})
        v->resize(size_t(rows), 0);
    for (std::vector<int32_t>* v : {&batch.cache_rows, &batch.targets}) v->resize(size_t(rows), -1);
}

int64_t chunk_of(int64_t left) { return left <= 1 ? 1 : left <= 16 ? 16 : most_chunk; }

}}  // namespace qlora
