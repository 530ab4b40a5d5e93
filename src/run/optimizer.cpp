// optimizer.cpp - drives AdamW. The norm and the step are two graphs, so that a step with a non-finite gradient can be
// left out.
#include "src/run/optimizer.h"

#include "src/ops/ops.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace optimizer_room {

constexpr const char* const moments[2] = {"moment1", "moment2"};

// So that a small budget holds few bytes; pages of a device's managed memory have 2 MiB.
int64_t piece_within(int64_t budget, const BackendImpl& backend) {
    constexpr int64_t least = int64_t(1) << 20;
    const int64_t pages = budget / (2 * least_window) / least * least;
    return std::max(pages, backend.has_host_memory() ? least : 2 * least);
}

}  // namespace optimizer_room

int64_t optimizer_bytes(const AdamW& o, int64_t count) {
    return o.bits == 8 ? 2 * count + 8 * adamw8_blocks(count) : 8 * count;
}

FlatAdamW::FlatAdamW(std::shared_ptr<BackendImpl> backend, BufferRef values, BufferRef gradients, int64_t count,
                     const AdamW& options, int64_t piece) {
    namespace room = optimizer_room;
    if (options.page_budget > 0) piece = std::min(piece, room::piece_within(options.page_budget, *backend));
    norm_graph_ = std::make_unique<GraphImpl>(backend);
    norm_ = global_norm(norm_graph_->state({count}, gradients));
    norm_graph_->output(norm_);

    const bool codes = options.bits == 8;
    const DType type = codes ? DType::u8 : DType::f32;
    const int64_t size = bytes_of(type, 1), some = piece / size;
    if (options.paged)
        pager_ = backend->pager({{{count * size, some * size}, {count * size, some * size}}, options.page_budget,
                                 options.page_folder});
    for (size_t m = 0; m < 2; ++m)
        states_.push_back({str(room::moments[m], codes ? "_codes" : ""),
                           pager_ ? pager_->array(m) : backend->allocate(count * size), !codes});
    const int64_t blocks = adamw8_blocks(count);
    for (size_t m = 0; codes && m < 2; ++m)
        states_.push_back({str(room::moments[m], "_scales"), backend->allocate(blocks * 4)});

    const AdamWAttr attr{options.beta1, options.beta2, options.epsilon, options.weight_decay, options.max_grad_norm};
    const int64_t step = pager_ ? some : count;
    for (int64_t at = 0, i = 0; at < count; at += step, ++i) {
        const int64_t n = std::min(step, count - at);
        Update& u = updates_.emplace_back();
        u.graph = std::make_unique<GraphImpl>(backend);
        GraphImpl& g = *u.graph;
        u.norm = g.input({1});
        u.hyper = g.input({4});
        const auto part = [&](const BufferRef& all) { return g.state({n}, slice(all, at * 4, n * 4)); };
        const auto moment = [&](size_t m) {
            return g.state({n}, pager_ ? pager_->piece(m, i) : states_[m].buffer, type);
        };
        const auto scales = [&](size_t m) {
            const int64_t first = at / adamw8_block, part_blocks = adamw8_blocks(n);
            return g.state({part_blocks}, slice(states_[2 + m].buffer, first * 4, part_blocks * 4));
        };
        if (codes)
            adamw8(part(values), part(gradients), {moment(0), moment(1)}, {scales(0), scales(1)}, u.norm, u.hyper,
                   attr);
        else adamw(part(values), part(gradients), moment(0), moment(1), u.norm, u.hyper, attr);
    }
}

float FlatAdamW::norm() {
    norm_graph_->run();
    float value = 0;
    norm_graph_->read(norm_, &value, 4);
    return value;
}

void FlatAdamW::step(float learning_rate, int64_t t, float factor, float norm) {
    const float hyper[4] = {learning_rate, float(t), factor, 0};
    const int64_t count = int64_t(updates_.size());
    for (int64_t turn = 0; turn < count; ++turn) {
        const int64_t i = backward_ ? count - 1 - turn : turn, next = backward_ ? i - 1 : i + 1;
        if (pager_) pager_->bring(i, next < count ? next : -1);
        Update& u = updates_[size_t(i)];
        u.graph->write(u.norm, &norm, 4);
        u.graph->write(u.hyper, hyper, sizeof hyper);
        u.graph->run();
        if (pager_) pager_->leave(i);
    }
    backward_ = pager_ && !backward_;
}

const std::vector<FlatAdamW::State>& FlatAdamW::states() const {
    if (pager_) pager_->settle();
    return states_;
}

int64_t FlatAdamW::bytes() const {
    int64_t total = 0;
    for (const State& s : states_) total += s.buffer->bytes;
    return total;
}

int64_t FlatAdamW::held_bytes() const {
    if (!pager_) return bytes();
    int64_t total = pager_->held_bytes();
    for (size_t i = 2; i < states_.size(); ++i) total += states_[i].buffer->bytes;
    return total;
}

}}  // namespace qlora
