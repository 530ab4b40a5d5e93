// memory_plan.cpp - what a run of training has in memory when it has most: everything that is allocated, mapped and
// read, item by item. It is the result of the planner and of sizes that are known, and what this process held before
// the trainer was made is asked of the system: text, vocabulary, the program itself.
#include "src/base/limits.h"
#include "src/cpu/gemm.h"
#include "src/run/trainer.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace memory_plan_room {

int64_t bytes_of(const DatasetImpl& data) {
    const DatasetRows& r = *data.rows;
    return int64_t(r.tokens.capacity() * sizeof(Token) + r.trained.capacity() + r.begin.capacity() * sizeof(int64_t) +
                   r.turns.capacity() * sizeof(TurnCounts) + r.weights.capacity() * sizeof(float) +
                   data.index.capacity() * sizeof(int64_t));
}

struct Weights {
    int64_t layers = 0, ends = 0;                      // ends: embedding and head, as far as they are read
    int64_t table = 0;                                 // an embedding that a device leaves to the host
    int64_t own = 0;                                   // of both, in memory of this process: in no file
};

// Of an embedding in a file that is not the head too, the rows of the data's tokens are read; the system maps 64 KiB
// around what is touched.
int64_t rows_read(const Weight& table, const DatasetImpl& data) {
    constexpr int64_t around = 64 << 10;
    const int64_t row = std::max<int64_t>(1, table.bytes() / std::max<int64_t>(1, table.rows()));
    std::vector<bool> touched(size_t(table.bytes() / around + 1), false);
    for (const Token t : data.rows->tokens)
        for (int64_t at = int64_t(t) * row / around; at <= (int64_t(t) * row + row - 1) / around; ++at)
            if (size_t(at) < touched.size()) touched[size_t(at)] = true;
    return std::min(table.bytes(), std::count(touched.begin(), touched.end(), true) * around);
}

Weights weights_of(const ModelImpl& model, const DatasetImpl& data) {
    Weights out;
    for_each_weight(model, [&](const Row& row, const WeightPtr& w) {
        const bool end = row.slot == Slot::embedding || row.slot == Slot::head || row.slot == Slot::positions;
        const bool apart = placement_of(model.config, row) == Placement::host;
        if (apart && !model.backend->has_host_memory()) out.table += w->bytes();
        else (end ? out.ends : out.layers) += apart && w->file ? rows_read(*w, data) : w->bytes();
        if (!w->file && !w->held) out.own += w->bytes();
    });
    return out;
}

// Of all data that may come: the rows of a micro-batch are rounded up to graphs of so many sizes.
int64_t graph_count(const BatchPlan& batches, int64_t step) {
    return std::min<int64_t>(int64_t(DecoderPool::most), batches.row_counts(step));
}

int64_t widest(const Config& c) {
    return std::max({c.hidden, c.feed_forward, c.heads * c.head_dim});
}

// The largest tensor of an adapter, which is written in one piece, once reordered; a pissa adapter is written as a
// plain one of twice the rank.
int64_t saving_bytes(const LoraImpl& lora) {
    int64_t most = 0;
    for (const LoraTarget& t : lora.targets) most = std::max({most, t.rank * t.in, t.rank * t.out});
    const bool pissa = lora.options.init == LoraInit::pissa;
    return pissa ? (2 * lora.parameters + 4 * most) * 4 : 2 * most * 4;
}

}  // namespace memory_plan_room

int64_t memory_before(const LoraImpl& lora, const DatasetImpl& data) {
    namespace room = memory_plan_room;
    const int64_t now = own_memory();
    if (now == 0) return 0;
    const BackendImpl& backend = *lora.base->backend;
    int64_t known = room::bytes_of(data) + int64_t(lora.start.capacity()) * 4;
    if (backend.has_host_memory() && !backend.is_outline())
        known += room::weights_of(*lora.base, data).own + lora.values->bytes + (lora.norms ? norm_bytes(lora) : 0);
    return std::max<int64_t>(0, now - known);
}

MemoryPlan TrainerImpl::plan() {
    namespace room = memory_plan_room;
    const auto training = lora->lock.train("Trainer::plan");
    Decoder& largest = decoders.at(batches.most_rows());
    const ModelImpl& model = *lora->base;
    BackendImpl& backend = *model.backend;
    const bool device = !backend.has_host_memory();
    const room::Weights weights = room::weights_of(model, *data);
    const ArenaUse arena = arena_use(largest.graph());
    const bool pissa = lora->options.init == LoraInit::pissa;

    MemoryPlan plan;
    const auto add = [&](const char* name, int64_t bytes, bool on_device) {
        if (bytes > 0) plan.items.push_back({name, bytes, on_device});
    };
    add("weights of the layers", weights.layers, device);
    add(weights.table > 0 ? "head" : "embedding and head", weights.ends, device);
    add("embedding", weights.table, false);
    add("adapter", lora->values->bytes, device);
    add("gradients", gradients->bytes, device);
    add("optimizer states", optimizer.held_bytes(), device);
    add("optimizer states paged to the host", device ? optimizer.bytes() - optimizer.held_bytes() : 0, false);
    const BufferRef& apart = decoders.spec().apart;
    add("checkpointed inputs on the host", device && apart ? apart->bytes : 0, false);
    add(options.checkpoint_activations ? "checkpointed inputs" : "activations kept", arena.kept, device);
    add("working set of a layer", arena.working, device);
    add("chunk of the loss", arena.loss, device);
    add("start of the adapter", pissa ? lora->parameters * 4 : 0, false);
    add("LoRA+", lora_plus.bytes(), device);
    add("row norms", lora->norms ? norm_bytes(*lora) : 0, device);
    add("graphs", room::graph_count(batches, backend.row_step()) * decoders.graph_bytes(), false);
    add("scratch of products",
        device ? 0 : gemm_memory(backend.host(), batches.most_rows(), room::widest(model.config)), false);
    add("decoded panels", panels ? panels->bytes() : 0, false);
    add("copies at saving", room::saving_bytes(*lora), false);
    add("rows of the data", room::bytes_of(*data), false);
    add("text and vocabulary", before_, false);
    add("program", program_memory(), false);
    for (const MemoryPlan::Item& item : plan.items) (item.device ? plan.device_peak : plan.peak) += item.bytes;
    return plan;
}

}}  // namespace qlora
