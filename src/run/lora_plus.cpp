// lora_plus.cpp - B += (ratio - 1) (B - old), with old = B before the step.
#include "src/run/lora_plus.h"

#include "src/ops/ops.h"

namespace qlora { inline namespace QLORA_ABI {

LoraPlus::LoraPlus(const LoraImpl& lora, float ratio) : values_(lora.values), backend_(lora.base->backend) {
    if (ratio == 1) return;
    int64_t total = 0;
    for (const LoraTarget& t : lora.targets) {
        parts_.push_back({t.b, t.out * t.rank});
        if (t.m >= 0) parts_.push_back({t.m, t.out});
    }
    for (const Part& part : parts_) total += part.count;
    old_ = backend_->allocate(total * 4);
    graph_ = std::make_unique<GraphImpl>(backend_);
    int64_t from = 0;
    for (const Part& part : parts_) {
        const int64_t bytes = part.count * 4;
        const Tensor now = graph_->state({part.count}, slice(values_, part.at * 4, bytes)),
                     old = graph_->state({part.count}, slice(old_, from * 4, bytes));
        accumulate(now, scale(add(now, scale(old, -1)), ratio - 1));
        from += part.count;
    }
}

void LoraPlus::before() {
    int64_t to = 0;
    for (const Part& part : parts_) {
        backend_->copy(*values_, part.at * 4, *old_, to * 4, part.count * 4);
        to += part.count;
    }
}

void LoraPlus::after() { if (graph_) graph_->run(); }

}}  // namespace qlora
