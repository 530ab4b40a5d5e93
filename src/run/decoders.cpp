// decoders.cpp - one graph for each row count that occurs, made on first use.
#include "src/run/decoders.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

Decoder& DecoderPool::at(int64_t rows) {
    const int64_t step = model_->backend->row_step();
    rows = std::max<int64_t>(1, (rows + step - 1) / step) * step;
    std::unique_ptr<Decoder>& slot = decoders_[rows];
    if (!slot) {
        DecoderSpec spec = spec_;
        spec.rows = rows;
        auto made = std::make_unique<Decoder>(model_, lora_, spec);
        GraphImpl& graph = made->graph();
        graph.arena = arena_;    // prepare() keeps it if it is large enough: only one decoder runs at a time
        graph.prepare();
        if (!arena_ || graph.arena->bytes > arena_->bytes) arena_ = graph.arena;
        slot = std::move(made);
    }
    return *slot;
}

}}  // namespace qlora
