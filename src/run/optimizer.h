// optimizer.h - AdamW over the flat buffer of an adapter: the gradient's norm, the step, and the state that a
// checkpoint keeps.
//
// The states are f32, or in 8 bits (arXiv:2110.02861), codes of bitsandbytes' dynamic maps with one scale per 256
// elements: 2.03 bytes a parameter instead of 8. Either way a step is one operation of a graph, on any backend. Paged,
// it is one graph for each piece: the same operation on parts of the same arrays, so the same bytes. Scales, a 64th of
// their codes, are never paged.
#pragma once
#include "src/graph/graph.h"
#include "src/graph/pager.h"

namespace qlora { inline namespace QLORA_ABI {

class FlatAdamW {
public:
    struct State { std::string name; BufferRef buffer; bool floats = true; };     // floats: not codes
    // values and gradients: `count` floats each, on the backend.
    // piece: bytes of each moment that are paged together. 8 MiB keep an H100's link busy (90 GB/s; 73 in pieces of 2);
    // pages of managed memory have 2 MiB, and blocks of 8-bit states are never cut.
    FlatAdamW(std::shared_ptr<BackendImpl>, BufferRef values, BufferRef gradients, int64_t count, const AdamW&,
              int64_t piece = int64_t(8) << 20);
    float norm();                                      // of the gradients as they are
    // One step with the gradients times `factor`, clipped; t counts the steps made, from 1; norm as norm() returned it.
    void step(float learning_rate, int64_t t, float factor, float norm);
    // Whole, in memory that can be downloaded and uploaded until the next step.
    const std::vector<State>& states() const;
    int64_t bytes() const;                             // of the states
    int64_t held_bytes() const;                        // of them in the backend's memory at a time, at most
    int64_t paged_bytes() const { return pager_ ? pager_->moved() : 0; }       // so far
    std::string paging() const { return pager_ ? pager_->kind() : ""; }        // how; "": not at all
private:
    struct Update {                                    // of one piece, or of all
        std::unique_ptr<GraphImpl> graph;
        Tensor norm, hyper;
    };
    std::vector<State> states_;
    std::unique_ptr<GraphImpl> norm_graph_;
    Tensor norm_;
    std::shared_ptr<Pager> pager_;
    std::vector<Update> updates_;
    bool backward_ = false;    // the next walk over the pieces
};

int64_t optimizer_bytes(const AdamW&, int64_t count);  // of the states, before there are any

}}  // namespace qlora
