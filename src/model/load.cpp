// load.cpp - the steps that both loaders share, and the summary of a loaded model.
#include "src/model/load.h"

#include "src/base/file.h"
#include "src/base/limits.h"
#include "src/base/stop.h"
#include "src/cpu/cpu.h"
#include "src/tensor/nf4.h"

#include <algorithm>
#include <set>

namespace qlora { inline namespace QLORA_ABI {

// A small tensor of a file is copied: touching its page maps up to 2 MiB of its neighbours, which may be there in 4
// bits already.
WeightPtr as_f32(Weight w) {
    if (w.dtype == DType::f32 && !w.file) return std::make_shared<const Weight>(std::move(w));
    return std::make_shared<const Weight>(dense_weight(w.name, w.shape, w.decoded()));
}

Weight plus(const Weight& w, float what) {
    std::vector<float> values = w.decoded();
    for (float& v : values) v += what;
    return dense_weight(w.name, w.shape, std::move(values));
}

WeightPtr now(const WeightPtr& w) { return w && w->deferred ? std::make_shared<const Weight>(w->deferred()) : w; }

void check_shape(const Weight& w, const Shape& expected, const std::string& where) {
    if (w.shape != expected)
        fail(Errc::format, where, ": tensor ", w.name, " has shape ", w.shape, ", the configuration says ", expected);
}

Loading::Loading(const LoadOptions& options, std::string where, const Config& config)
    : options_(options), where_(std::move(where)), expected_(count_tensors(config)) {
    if (options.quantize && !is_4bit(*options.quantize))
        fail(Errc::unsupported, "load ", where_, ": quantize = ", name_of(*options.quantize),
             " is not possible; choose nf4 or fp4, or leave it empty to keep the stored types");
}

// Once more, as the tensors read since brought pages of their neighbours back.
Loading::~Loading() {
    for (const Source& s : quantized_) s.file->forget(s.data, s.bytes);
}

WeightPtr Loading::linear(Weight w) {
    // What is stored in the wanted type stays as it is: quantizing it again would only add error.
    if (!options_.quantize || w.dtype == *options_.quantize) return std::make_shared<const Weight>(std::move(w));
    // Tensor by tensor, since memory that was filled no longer counts as free: an error here, where the system would
    // end some process later.
    if (const int64_t needed = bytes_of(*options_.quantize, w.elements()), left = available_memory(); needed > left)
        fail(Errc::memory, "load ", where_, ": ", w.name, " as ", name_of(*options_.quantize), " needs ", needed,
             " bytes, ", left, " are free; use a smaller model");
    ThreadPool* pool = options_.backend.impl() ? &options_.backend.impl()->host().pool : nullptr;
    Weight quantized = quantize_4bit(w, *options_.quantize, options_.double_quant, pool);
    if (w.file) {
        w.file->forget(w.data, w.bytes());             // else the peak would be the whole source beside its 4-bit copy
        quantized_.push_back({w.owner, w.file, w.data, w.bytes()});
    }
    return std::make_shared<const Weight>(std::move(quantized));
}

WeightPtr Loading::held(Kind kind, Weight w) {
    switch (kind) {
        case Kind::linear: return linear(std::move(w));
        case Kind::norm: case Kind::bias: return as_f32(std::move(w));
        case Kind::embedding: break;
    }
    return std::make_shared<const Weight>(std::move(w));
}

void Loading::fill(ModelImpl& model, const std::function<Weight(const Row&, int64_t)>& read) {
    const Config& c = model.config;
    model.layers.resize(size_t(c.layers));
    for_each_tensor(c, [&](const Row& row, int64_t layer) {
        WeightPtr w = held(row.kind, read(row, layer));
        // few rows of an embedding are read at a time
        if (model.backend)
            w = model.backend->hold(std::move(w), row.slot == Slot::embedding ? Placement::host : Placement::device);
        model.at(row.slot, layer) = tick(std::move(w));
    });
    if (c.tied) model.at(Slot::head) = model.at(Slot::embedding);
}

WeightPtr Loading::tick(WeightPtr weight) {
    check_stop();
    done_ = std::min(done_ + 1, expected_);
    if (options_.on_progress && !options_.on_progress(float(done_) / float(expected_)))
        fail(Errc::argument, "load ", where_, ": cancelled");
    return weight;
}

void set_text(ModelImpl& model) {
    const Token eos = model.tokenizer ? model.tokenizer->eos : -1;
    if (eos >= model.config.vocabulary)
        fail(Errc::format, model.path, ": the end-of-text token ", eos, " is outside the model's vocabulary of ",
             model.config.vocabulary);
    if (model.tokenizer && !model.tokenizer->chat_template.empty())
        model.chat_template = ChatTemplate::parse(model.tokenizer->chat_template, model.path + ": chat template");
}

ModelInfo describe(const ModelImpl& m) {
    const Config& c = m.config;
    ModelInfo info;
    info.path = m.path;
    info.family = c.family;
    info.layers = c.layers; info.hidden = c.hidden; info.heads = c.heads; info.kv_heads = c.kv_heads;
    info.feed_forward = c.feed_forward; info.vocabulary = c.vocabulary; info.context = c.context;
    std::set<std::string> types;
    for_each_weight(m, [&](const Row& row, const WeightPtr& w) {
        info.parameters += w->elements();
        info.bytes += w->bytes();
        const char* twice = is_4bit(w->dtype) && !w->quant.absmax ? ", double-quantized" : "";
        if (row.kind == Kind::linear) types.insert(str(name_of(w->dtype), twice));
    });
    if (m.tokenizer) info.notes = m.tokenizer->notes;
    if (c.dynamic_rope)
        info.notes.push_back(str(m.path, " asks for rotary scaling \"dynamic\", which changes nothing up to ",
                                 c.context, " tokens; longer texts are refused"));
    for (const std::string& t : types) info.weights += (info.weights.empty() ? "" : " + ") + t;
    return info;
}

}}  // namespace qlora
