// llama.h - models of Llama's kind without a file: a shape, and a function that makes each tensor.
#pragma once
#include "src/base/access.h"
#include "src/model/family.h"
#include "src/tensor/nf4.h"

namespace gpu_llama {

struct Sizes {
    const char* name;
    int64_t layers, hidden, heads, kv_heads, feed_forward, vocabulary;
    bool tied = false;                                 // the head is the embedding
};

// tensor(row, layer, shape): as the backend holds it.
template <class Tensor>
qlora::Model model_of(const std::shared_ptr<qlora::BackendImpl>& backend, const Sizes& s, const Tensor& tensor) {
    auto m = std::make_shared<qlora::ModelImpl>();
    qlora::Config& c = m->config;
    c = qlora::family_named("llama")->start();
    c.vocabulary = s.vocabulary, c.hidden = s.hidden, c.layers = s.layers;
    c.heads = s.heads, c.kv_heads = s.kv_heads;
    c.head_dim = c.rotated = s.hidden / s.heads;
    c.feed_forward = s.feed_forward;
    c.context = 2048;
    c.tied = s.tied;
    qlora::set_frequencies(c, 10000, {}, s.name);
    m->path = s.name;
    m->backend = backend;
    m->layers.resize(size_t(c.layers));
    qlora::for_each_tensor(c, [&](const qlora::Row& row, int64_t layer) {
        m->at(row.slot, layer) = tensor(row, layer, qlora::shape_of(c, row, layer));
    });
    if (c.tied) m->at(qlora::Slot::head) = m->at(qlora::Slot::embedding);
    return qlora::handle_of<qlora::Model>(std::shared_ptr<const qlora::ModelImpl>(m));
}

}  // namespace gpu_llama
