// draft.h - a model that is to be written: what the header of a file says of each tensor, and the tensor itself when
// its turn comes. A model in another type is written so without being held in it: beside source and result there is one
// tensor in memory.
#pragma once
#include "src/model/model.h"

#include <functional>

namespace qlora { inline namespace QLORA_ABI {

struct DraftTensor {
    DType dtype;
    Shape shape;
    WeightPtr weight;                                  // null: made when asked for. Always there in 4 bits, of which
                                                       // the header of a folder says more than type and shape
    std::function<Weight()> make = {};

    DraftTensor(WeightPtr w) : dtype(w->dtype), shape(w->shape), weight(std::move(w)) {}
    DraftTensor(DType type, Shape s, std::function<Weight()> f)
        : dtype(type), shape(std::move(s)), make(std::move(f)) {}
    int64_t bytes() const { return weight ? weight->bytes() : bytes_of(dtype, elements_of(shape)); }
    WeightPtr now() const { return weight ? on_host(weight) : std::make_shared<const Weight>(make()); }
};

struct Draft {
    const ModelImpl& model;                            // configuration, metadata and tokenizer
    std::function<DraftTensor(Slot, int64_t layer)> at;

    Draft(const ModelImpl& m) : model(m), at([&m](Slot s, int64_t layer) { return m.at(s, layer); }) {}
    Draft(const ModelImpl& m, std::function<DraftTensor(Slot, int64_t layer)> f) : model(m), at(std::move(f)) {}
};

// nf4 tensors as I8 with companion tensors; loads again bit for bit
void save_gguf_model(const Draft&, const std::string& path);
// 4-bit in the bitsandbytes layout; in several files above shard_bytes, which is what transformers takes for a shard.
void save_hf_model(const Draft&, const std::string& folder, int64_t shard_bytes = 5'000'000'000);

}}  // namespace qlora
