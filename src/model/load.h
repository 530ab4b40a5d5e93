// load.h - what the loaders of both formats share.
#pragma once
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {

WeightPtr as_f32(Weight);                              // norms and biases: the kernels read them as floats
Weight plus(const Weight&, float);                     // each of its numbers, as f32
WeightPtr now(const WeightPtr&);                       // a deferred weight made, any other as it is
void check_shape(const Weight&, const Shape& expected, const std::string& where);

// LoadOptions at work: quantizes the linear layers one tensor at a time, and reports after each tensor.
class Loading {
public:
    Loading(const LoadOptions&, std::string where, const Config&);
    ~Loading();
    Loading(const Loading&) = delete;
    // Fills every tensor of the model with what read(row, layer) gives.
    void fill(ModelImpl&, const std::function<Weight(const Row&, int64_t layer)>& read);
private:
    WeightPtr held(Kind, Weight);
    WeightPtr linear(Weight);                          // quantized if asked for
    WeightPtr tick(WeightPtr);
    struct Source { std::shared_ptr<const void> owner; const MappedFile* file; const void* data; int64_t bytes; };
    std::vector<Source> quantized_;                    // what is no longer needed of the files
    const LoadOptions& options_;
    std::string where_;
    int64_t expected_, done_ = 0;                      // tensors
};

void set_text(ModelImpl&);    // the chat template that the tokenizer carries; its end-of-text token must have a row

}}  // namespace qlora
