// load.cpp - the steps that both loaders share, and the summary of a loaded model.
#include "src/model/load.h"

#include "src/base/access.h"
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
    for (const WeightPtr& w : quantized_) w->file->forget(w->data, w->bytes());
}

void Loading::linear(ModelImpl& model, Module m, int64_t layer, Weight stored) {
    Weight w = stored;
    align(w);
    // What is stored in the wanted type stays as it is: quantizing it again would only add error.
    if (!options_.quantize || w.dtype == *options_.quantize) {
        model.at(m, layer) = std::make_shared<const Weight>(std::move(w));
        return;
    }
    // Tensor by tensor, since memory that was filled no longer counts as free: an error here, where the system would
    // end some process later.
    if (const int64_t needed = bytes_of(*options_.quantize, w.elements()), left = available_memory(); needed > left)
        fail(Errc::memory, "load ", where_, ": ", w.name, " as ", name_of(*options_.quantize), " needs ", needed,
             " bytes, ", left, " are free; use a smaller model");
    ThreadPool* pool = impl_of(options_.backend) ? &impl_of(options_.backend)->host().pool : nullptr;
    Weight quantized = quantize_4bit(w, *options_.quantize, options_.double_quant, pool);
    const auto original = std::make_shared<const Weight>(std::move(stored));
    if (original->file) {
        original->file->forget(original->data, original->bytes());     // else the peak would be the source and its copy
        quantized_.push_back(original);
    }
    model.replace(m, layer, std::make_shared<const Weight>(std::move(quantized)), original);
}

void Loading::fill(ModelImpl& model, const std::function<Weight(const Row&, int64_t)>& read) {
    const Config& c = model.config;
    model.layers.resize(size_t(c.layers));
    for_each_tensor(c, [&](const Row& row, int64_t layer) {
        WeightPtr& w = model.at(row.slot, layer);
        switch (row.kind) {
            case Kind::linear: linear(model, row.slot, layer, read(row, layer)); break;
            case Kind::norm: case Kind::bias: w = as_f32(read(row, layer)); break;
            case Kind::embedding: w = std::make_shared<const Weight>(read(row, layer)); break;
        }
        if (model.backend) w = model.backend->hold(std::move(w), placement_of(c, row));
        tick();
    });
    if (c.tied) model.at(Slot::head) = model.at(Slot::embedding);
}

void Loading::tick() {
    check_stop();
    done_ = std::min(done_ + 1, expected_);
    if (options_.on_progress && !options_.on_progress(float(done_) / float(expected_)))
        fail(Errc::cancelled, "load ", where_, ": cancelled");
}

void check_text(const ModelImpl& model) {
    if (!model.tokenizer) return;
    const Token eos = model.tokenizer->eos;
    if (eos >= model.config.vocabulary)
        fail(Errc::format, model.path, ": the end-of-text token ", eos, " is outside the model's vocabulary of ",
             model.config.vocabulary);
    if (!model.tokenizer->chat_template.empty())
        ChatTemplate::parse(model.tokenizer->chat_template, model.path + ": chat template");
}

WeightPtr ModelImpl::stored(Module m, int64_t layer) const {
    const WeightPtr from = originals_.empty() ? nullptr : originals_.at(size_t(layer))[size_t(m)];
    return from ? from : at(m, layer);
}

WeightPtr ModelImpl::original(Module m, int64_t layer) const {
    const WeightPtr from = stored(m, layer);
    if (from == at(m, layer)) return from;
    Weight w = *from;
    align(w);
    return std::make_shared<const Weight>(std::move(w));
}

void ModelImpl::replace(Module m, int64_t layer, WeightPtr w, WeightPtr original) {
    at(m, layer) = std::move(w);
    originals_.resize(layers.size());
    // what is in no file would take the memory that its replacement saves
    const bool free = original && original->file && !original->held;
    originals_[size_t(layer)][size_t(m)] = free ? std::move(original) : nullptr;
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
    info.notes.insert(info.notes.end(), m.metadata->notes.begin(), m.metadata->notes.end());
    if (c.dynamic_rope)
        info.notes.push_back(str(m.path, " asks for rotary scaling \"dynamic\", which changes nothing up to ",
                                 c.context, " tokens; longer texts are refused"));
    for (const std::string& t : types) info.weights += (info.weights.empty() ? "" : " + ") + t;
    return info;
}

}}  // namespace qlora
