// load.cpp - the steps that both loaders share, and the summary of a loaded model.
#include "src/model/load.h"

#include "src/base/access.h"
#include "src/base/file.h"
#include "src/base/limits.h"
#include "src/base/stop.h"
#include "src/cpu/cpu.h"
#include "src/model/fused.h"
#include "src/model/head.h"

#include <algorithm>
#include <set>

namespace qlora { inline namespace QLORA_ABI {

// A small tensor of a file is copied and its pages given back: touching them maps up to 2 MiB of its neighbours, which
// may be there in 4 bits already.
static std::vector<float> read_once(const Weight& w) {
    std::vector<float> values = w.decoded();
    if (w.file) w.file->forget(w.data, bytes_of(w.dtype, w.elements()));
    return values;
}

Weight as_f32(Weight w) {
    return w.dtype == DType::f32 && !w.file ? w : dense_weight(w.name, w.shape, read_once(w));
}

Weight plus(const Weight& w, float what) {
    std::vector<float> values = read_once(w);
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
    for (const WeightPtr& w : quantized_) w->file->forget(w->data, bytes_of(w->dtype, w->elements()));
}

WeightPtr Loading::held(const ModelImpl& model, const Row& row, Weight w) const {
    const auto made = std::make_shared<const Weight>(std::move(w));
    return model.backend ? model.backend->hold(made, placement_of(model.config, row)) : made;
}

// What is stored in the wanted type stays as it is: quantizing it again would only add error. Other parts of a fused
// layer wait for its last one.
void Loading::linear(ModelImpl& model, const Row& row, int64_t layer, Stored stored) {
    if (!options_.quantize || stored.tensor->dtype == *options_.quantize) {
        Weight w = stored.now();
        align(w);
        model.at(row.slot, layer) = held(model, row, std::move(w));
    } else {
        waiting_.push_back({&row, std::move(stored)});
    }
    if (row.slot != parts_of(model.config, row.slot).back()) return;
    const std::vector<Waiting> all = std::move(waiting_);
    waiting_.clear();
    const size_t parts = parts_of(model.config, row.slot).size();
    for (size_t i = 0; i < all.size(); i += all.size() == parts ? parts : 1)
        quantize(model, layer, std::span(all).subspan(i, all.size() == parts ? parts : 1));
}

void Loading::quantize(ModelImpl& model, int64_t layer, std::span<const Waiting> of) {
    const DType type = *options_.quantize;
    if (model.backend && model.backend->is_outline()) {
        for (const Waiting& part : of)
            model.replace(part.row->slot, layer, outlined(*part.row, shape_of(model.config, *part.row, layer)),
                          part.stored);
        return;
    }
    std::vector<Weight> parts;
    int64_t needed = 0;
    for (const Waiting& part : of) {
        parts.push_back(part.stored.now());
        align(parts.back());
        needed += bytes_of(type, parts.back().elements());
    }
    // Tensor by tensor, since memory that was filled no longer counts as free: an error here, where the system would
    // end some process later.
    if (const int64_t left = available_memory(); needed > left)
        fail(Errc::memory, "load ", where_, ": ", parts[0].name, " as ", name_of(type), " needs ", needed, " bytes, ",
             left, " are free; use a smaller model");
    ThreadPool* pool = impl_of(options_.backend) ? &impl_of(options_.backend)->host().pool : nullptr;
    std::vector<Weight> quantized = convert_module(model.config, of[0].row->slot, layer, parts, type,
                                                   options_.double_quant, pool);
    for (size_t i = 0; i < of.size(); ++i) {
        const WeightPtr& file = of[i].stored.tensor;
        if (file->file) {
            // else the peak would be the source and its copy
            file->file->forget(file->data, bytes_of(file->dtype, file->elements()));
            quantized_.push_back(file);
        }
        model.replace(of[i].row->slot, layer, held(model, *of[i].row, std::move(quantized[i])), of[i].stored);
    }
}

void Loading::head(ModelImpl& model, const Row& row, WeightPtr stored) {
    const bool outline = model.backend && model.backend->is_outline();
    ThreadPool* pool = impl_of(options_.backend) ? &impl_of(options_.backend)->host().pool : nullptr;
    const WeightPtr made = smaller_head(stored, *options_.head, outline, where_, pool);
    if (made != stored) {
        model.head = options_.head;
        if (stored->file) quantized_.push_back(stored);
    }
    model.at(row.slot) = held(model, row, *made);
}

// Of a weight that is made by quantizing, its sizes.
WeightPtr Loading::outlined(const Row& row, const Shape& shape) const {
    auto w = std::make_shared<Weight>();
    w->name = row.gguf;
    w->dtype = *options_.quantize;
    w->shape = shape;
    static const float one = 1;
    if (!options_.double_quant) w->quant.absmax = &one;
    return w;
}

void Loading::fill(ModelImpl& model, const std::function<Stored(const Row&, int64_t)>& read) {
    const Config& c = model.config;
    model.layers.resize(size_t(c.layers));
    for_each_tensor(c, [&](const Row& row, int64_t layer) {
        Stored stored = read(row, layer);
        if (row.kind == Kind::linear) linear(model, row, layer, std::move(stored));
        else if (options_.head && is_head(c, row)) head(model, row, std::make_shared<const Weight>(stored.now()));
        else if (row.kind == Kind::embedding) model.at(row.slot, layer) = held(model, row, stored.now());
        else model.at(row.slot, layer) = held(model, row, as_f32(stored.now()));
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

Stored ModelImpl::stored(Slot linear, int64_t layer) const {
    const Stored from = originals_.empty() ? Stored{} : originals_.at(size_t(layer))[size_t(linear)];
    return from.tensor ? from : Stored{at(linear, layer)};
}

WeightPtr ModelImpl::original(Slot linear, int64_t layer) const {
    const Stored from = stored(linear, layer);
    if (from.tensor == at(linear, layer)) return from.tensor;
    Weight w = from.now();
    align(w);
    return std::make_shared<const Weight>(std::move(w));
}

void ModelImpl::replace(Slot linear, int64_t layer, WeightPtr w, Stored original) {
    at(linear, layer) = std::move(w);
    originals_.resize(layers.size());
    // what is in no file would take the memory that its replacement saves
    const bool free = original.tensor && original.tensor->file && !original.tensor->held;
    originals_[size_t(layer)][size_t(linear)] = free ? std::move(original) : Stored{};
}

ModelInfo describe(const ModelImpl& m) {
    const Config& c = m.config;
    ModelInfo info;
    info.path = m.path;
    info.family = c.family;
    info.layers = c.layers; info.hidden = c.hidden; info.heads = c.heads; info.kv_heads = c.kv_heads;
    info.feed_forward = c.feed_forward; info.vocabulary = c.vocabulary; info.context = c.context;
    std::set<std::string> types;
    bool codes = false;                                // which llama.cpp does not read
    for_each_weight(m, [&](const Row& row, const WeightPtr& w) {
        info.parameters += w->elements();
        info.bytes += w->bytes();
        const char* twice = is_4bit(w->dtype) && !w->quant.absmax ? ", double-quantized" : "";
        codes = codes || is_4bit(w->dtype);
        if (row.kind == Kind::linear) types.insert(str(name_of(w->dtype), twice));
    });
    info.head = name_of(m.at(Slot::head)->dtype);
    if (m.tokenizer) info.notes = m.tokenizer->notes;
    info.notes.insert(info.notes.end(), m.notes.begin(), m.notes.end());
    if (c.dynamic_rope)
        info.notes.push_back(str(m.path, " asks for rotary scaling \"dynamic\", which changes nothing up to ",
                                 c.context, " tokens; longer texts are refused: keys in a cache do not follow it"));
    if (!c.long_frequencies.empty())
        info.notes.push_back(str(m.path, ": texts of more than ", int64_t(c.rope_scaling.original_context),
                                 " tokens have rotary frequencies of their own (longrope); a dialogue that outgrows "
                                 "them is read once more"));
    if (m.metadata->gguf && c.window > 0 && c.window < c.context && !codes && !family_named(c.family)->gguf_pattern)
        info.notes.push_back(str(m.path, ": its layers see the last ", c.window, " keys; llama.cpp takes no notice of "
                                 "that in files of this architecture, and says other things behind longer texts"));
    for (const std::string& t : types) info.weights += (info.weights.empty() ? "" : " + ") + t;
    return info;
}

}}  // namespace qlora
