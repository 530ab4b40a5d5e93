// optimizer.h - AdamW over the flat buffer of an adapter: the gradient's norm, the step, and the state that a
// checkpoint keeps.
//
// The states are f32, or in 8 bits (arXiv:2110.02861), codes of bitsandbytes' dynamic maps with one scale per 256
// elements: 2.03 bytes a parameter instead of 8. Either way a step is one operation of a graph, on any backend.
#pragma once
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {

class FlatAdamW {
public:
    struct State { std::string name; BufferRef buffer; bool floats = true; };     // floats: not codes
    // values and gradients: `count` floats each, on the backend.
    FlatAdamW(std::shared_ptr<BackendImpl>, BufferRef values, BufferRef gradients, int64_t count, const AdamW&);
    float norm();                                      // of the gradients as they are
    // One step with the gradients times `factor`, clipped; t counts the steps made, from 1; norm as norm() returned it.
    void step(float learning_rate, int64_t t, float factor, float norm);
    const std::vector<State>& states() const { return states_; }
    int64_t bytes() const;                             // of the states
private:
    std::vector<State> states_;
    std::unique_ptr<GraphImpl> norm_graph_, step_graph_;
    Tensor norm_, norm_input_, hyper_;
};

int64_t optimizer_bytes(const AdamW&, int64_t count);  // of the states, before there are any

}}  // namespace qlora
