// decoders.cpp - one graph for each row count that occurs, made on first use.
#include "src/run/decoders.h"

#include "src/base/largest.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

int64_t padded_rows(const ModelImpl& model, int64_t rows) {
    const int64_t step = model.backend->row_step();
    return std::max<int64_t>(1, (rows + step - 1) / step) * step;
}

Decoder& DecoderPool::at(int64_t rows) {
    rows = padded_rows(*model_, rows);
    if (!decoders_.contains(rows) && decoders_.size() == most)
        decoders_.erase(std::min_element(decoders_.begin(), decoders_.end(), [](const auto& a, const auto& b) {
            return a.second.last < b.second.last;
        }));
    Held& slot = decoders_[rows];
    slot.last = ++asked_;
    if (!slot.decoder) {
        DecoderSpec spec = spec_;
        spec.rows = rows;
        auto made = std::make_unique<Decoder>(model_, lora_, spec);
        GraphImpl& graph = made->graph();
        graph.panels = panels_;
        graph.arena = arena_;    // prepare() keeps it if it is large enough: only one decoder runs at a time
        graph.prepare();
        if (!arena_ || graph.arena->bytes > arena_->bytes) arena_ = graph.arena;
        slot.decoder = std::move(made);
    }
    return *slot.decoder;
}

void DecoderPool::use_panels(std::shared_ptr<PanelStore> panels) {
    panels_ = std::move(panels);
    for (const auto& [rows, held] : decoders_)
        if (held.decoder) held.decoder->graph().panels = panels_;
}

int64_t DecoderPool::graph_bytes() const {
    int64_t most_bytes = 0;
    for (const auto& [rows, held] : decoders_)
        if (held.decoder) most_bytes = std::max(most_bytes, memory_of(held.decoder->graph()));
    return most_bytes;
}

int64_t candidates_of(const ModelImpl& model) {
    return model.backend->has_host_memory() ? 0 : std::min(most_candidates, model.config.vocabulary);
}

Scores RowScores::at(int64_t row, int64_t wanted) {
    const std::span<const float> here = decoder_.logits_here(row);
    const int64_t count = here.empty() ? decoder_.spec().candidates : std::min(most_candidates, int64_t(here.size()));
    if (wanted < 1 || wanted > count) return {decoder_.logits_of(row), {}};
    Scores out;
    if (!here.empty()) {
        std::vector<Ranked> best(static_cast<size_t>(wanted));
        largest(here.data(), int64_t(here.size()), best);
        for (const Ranked& r : best) out.best.push_back({r.number, Token(r.at)});
    } else {
        if (chosen_.empty()) chosen_ = decoder_.candidates();
        const float *const scores = chosen_.data() + row * 2 * count, *const ids = scores + count;
        for (int64_t i = 0; i < wanted; ++i) out.best.push_back({scores[i], Token(ids[i])});
    }
    if (std::isnan(out.best[0].score)) return {decoder_.logits_of(row), {}};   // an error that names the token
    return out;
}

}}  // namespace qlora
