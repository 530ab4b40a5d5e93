// dora.cpp - the norms || W + s B A || that magnitudes are measured against (arXiv:2402.09353). They are constants of a
// step: computed when the factors have changed, once for all micro-batches and for all tokens of a reply, and kept
// beside the factors.
#include "src/model/lora_impl.h"
#include "src/ops/ops.h"

#include <mutex>

namespace qlora { inline namespace QLORA_ABI {

struct DoraNorms {
    std::mutex lock;                                   // sessions of several threads may share an adapter
    std::unique_ptr<GraphImpl> graph;                  // all norms, from the factors where they are into the buffer
    BufferRef buffer;                                  // of {out} a target, one after another: LoraTarget::norm
    uint64_t version = 0;                              // of the factors that they belong to
};

std::shared_ptr<DoraNorms> make_norms(const LoraImpl& lora) {
    auto norms = std::make_shared<DoraNorms>();
    norms->graph = std::make_unique<GraphImpl>(lora.base->backend);
    int64_t count = 0;
    for (const LoraTarget& t : lora.targets) count += t.out;
    norms->buffer = lora.base->backend->allocate(count * 4);
    for (const LoraTarget& t : lora.targets) {
        const Tensor a = norms->graph->state({t.rank, t.in}, slice(lora.values, t.a * 4, t.rank * t.in * 4));
        for (const Slot part : parts_of(lora.base->config, t.module)) {
            const Config& c = lora.base->config;
            const int64_t first = first_row(c, part, t.layer), out = shape_of(c, part, t.layer)[0];
            const Tensor b = norms->graph->state(
                {out, t.rank}, slice(lora.values, (t.b + first * t.rank) * 4, out * t.rank * 4));
            copy(norms->graph->state({out}, slice(norms->buffer, (t.norm + first) * 4, out * 4)),
                 dora_norm(norms->graph->weight(lora.base->at(part, t.layer)), a, b, t.scale));
        }
    }
    return norms;
}

BufferRef refresh_norms(const LoraImpl& lora) {
    DoraNorms& norms = *lora.norms;
    if (lora.base->backend->is_outline()) return norms.buffer;
    const std::lock_guard<std::mutex> guard(norms.lock);
    if (norms.version == lora.version) return norms.buffer;
    norms.graph->run();
    norms.version = lora.version;
    return norms.buffer;
}

int64_t norm_bytes(const LoraImpl& lora) { return lora.norms->buffer->bytes + make_plan(*lora.norms->graph).arena; }

// A new adapter starts as the weights that it finds: m = n.
void start_magnitudes(LoraImpl& lora) {
    const BufferRef norms = refresh_norms(lora);
    for (const LoraTarget& t : lora.targets)
        lora.base->backend->copy(*norms, t.norm * 4, *lora.values, t.m * 4, t.out * 4);
}

}}  // namespace qlora
