// load.h - what the loaders of both formats share.
#pragma once
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {

Weight as_f32(Weight);                                 // norms and biases: the kernels read them as floats
Weight plus(const Weight&, float);                     // each of its numbers, as f32
void check_shape(const Weight&, const Shape& expected, const std::string& where);

// LoadOptions at work: quantizes the linear layers one tensor at a time, and reports after each tensor.
class Loading {
public:
    Loading(const LoadOptions&, std::string where, const Config&);
    ~Loading();
    Loading(const Loading&) = delete;
    // Fills every tensor of the model with what read(row, layer) gives, of linear layers the view().
    void fill(ModelImpl&, const std::function<Stored(const Row&, int64_t layer)>& read);
private:
    struct Waiting { const Row* row; Stored stored; };
    void linear(ModelImpl&, const Row&, int64_t layer, Stored);        // quantized if asked for
    void quantize(ModelImpl&, int64_t layer, std::span<const Waiting>);
    void head(ModelImpl&, const Row&, WeightPtr stored);
    WeightPtr outlined(const Row&, const Shape&) const;
    WeightPtr held(const ModelImpl&, const Row&, Weight) const;
    void tick();
    std::vector<Waiting> waiting_;                     // parts of a fused layer
    std::vector<WeightPtr> quantized_;                 // what is no longer needed of the files
    const LoadOptions& options_;
    std::string where_;
    int64_t expected_, done_ = 0;                      // tensors
};

// A tensor that holds several slots, read once for all of them.
struct FusedTensor {
    struct Whole { std::string name; Stored tensor; } matrix, bias;    // the rows of the table take turns with them
    Stored rows(const RowsInFile& at, const std::function<Stored()>& read) {
        Whole& whole = at.shape.size() == 1 ? bias : matrix;
        if (whole.name != at.name) whole = {at.name, read()};
        return {whole.tensor.tensor, at.rows, whole.tensor.transpose};
    }
};

// What a tokenizer must be for this model: its end-of-text token has a row, and its chat template can be read.
void check_text(const ModelImpl&);

}}  // namespace qlora
