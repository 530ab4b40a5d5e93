// head.cpp - the head in fewer bits. It is the largest matrix of a model, and as it is read once a token and not once a
// layer, what few bits cost of the loss is little. A head that is the embedding is one matrix: tokens are looked up in
// what is held, so that both are the same numbers still.
#include "src/model/head.h"

#include "src/base/limits.h"
#include "src/cpu/cpu.h"
#include "src/tensor/encode.h"

namespace qlora { inline namespace QLORA_ABI {

WeightPtr smaller_head(const WeightPtr& head, DType type, bool outline, const std::string& model, ThreadPool* pool) {
    if (type != DType::q8_0 && type != DType::q4_0 && type != DType::iq4_nl)
        fail(Errc::unsupported, "load ", model, ": the head as ", name_of(type),
             " is not possible; choose q8_0, q4_0 or iq4_nl, or leave it as it is stored");
    const int64_t block = type_info(type).block;
    if (head->cols() % block)
        fail(Errc::unsupported, "load ", model, ": rows of the head have ", head->cols(),
             " numbers, not whole blocks of ", block, " as ", name_of(type), " has; leave it as it is stored");
    const int64_t bytes = bytes_of(type, head->elements());
    if (bytes >= head->bytes()) return head;
    if (outline) {
        auto sizes = std::make_shared<Weight>();
        sizes->name = head->name;
        sizes->dtype = type;
        sizes->shape = head->shape;
        return sizes;
    }
    if (const int64_t left = available_memory(); bytes > left)
        fail(Errc::memory, "load ", model, ": the head as ", name_of(type), " needs ", bytes, " bytes, ", left,
             " are free; use a smaller model");
    const WeightPtr source = on_host(head);
    auto made = std::make_shared<const Weight>(convert_weight(*source, type, true, pool));
    // else the peak would be the source and its copy
    if (source->file) source->file->forget(source->data, bytes_of(source->dtype, source->elements()));
    return made;
}

std::shared_ptr<ModelImpl> model_with_head(const ModelImpl& model, DType type) {
    const Config& c = model.config;
    const WeightPtr& old = model.at(Slot::head);
    ThreadPool* const pool = model.backend ? &model.backend->host().pool : nullptr;
    WeightPtr made = smaller_head(old, type, model.backend && model.backend->is_outline(), model.path, pool);
    auto out = std::make_shared<ModelImpl>(model);
    if (made == old) return out;
    out->head = type;
    if (model.backend) made = model.backend->hold(std::move(made), Placement::device);
    if (c.tied) out->at(Slot::embedding) = made;
    out->at(Slot::head) = std::move(made);
    return out;
}

}}  // namespace qlora
