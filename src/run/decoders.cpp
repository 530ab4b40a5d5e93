// decoders.cpp - one graph for each row count that occurs, made on first use.
#include "src/run/decoders.h"

namespace qlora { inline namespace QLORA_ABI {

void DecoderPool::reserve(int64_t rows) { at(round_rows(rows)); }

Decoder& DecoderPool::at(int64_t rows) {
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
