// optimizer.cpp - drives AdamW. The norm and the step are two graphs, so that a step with a non-finite gradient can be
// left out.
#include "src/run/optimizer.h"

#include "src/ops/ops.h"

namespace qlora { inline namespace QLORA_ABI {

int64_t optimizer_bytes(const AdamW& o, int64_t count) {
    return o.bits == 8 ? 2 * count + 8 * adamw8_blocks(count) : 8 * count;
}

FlatAdamW::FlatAdamW(std::shared_ptr<BackendImpl> backend, BufferRef values, BufferRef gradients, int64_t count,
                     const AdamW& options) {
    norm_graph_ = std::make_unique<GraphImpl>(backend);
    norm_ = global_norm(norm_graph_->state({count}, gradients));
    norm_graph_->output(norm_);
    step_graph_ = std::make_unique<GraphImpl>(backend);
    GraphImpl& g = *step_graph_;
    norm_input_ = g.input({1});
    hyper_ = g.input({4});
    // paged states may be larger than the device's memory
    const Memory where = options.paged ? Memory::unified : Memory::device;
    const auto state = [&](const char* name, int64_t size, DType type) {
        states_.push_back({name, backend->allocate(bytes_of(type, size), where), type == DType::f32});
        return g.state({size}, states_.back().buffer, type);
    };
    const AdamWAttr attr{options.beta1, options.beta2, options.epsilon, options.weight_decay, options.max_grad_norm};
    const Tensor p = g.state({count}, values), gradient = g.state({count}, gradients);
    if (options.bits == 8) {
        const int64_t blocks = adamw8_blocks(count);
        const Tensor code1 = state("moment1_codes", count, DType::u8), code2 = state("moment2_codes", count, DType::u8),
                     scale1 = state("moment1_scales", blocks, DType::f32),
                     scale2 = state("moment2_scales", blocks, DType::f32);
        adamw8(p, gradient, {code1, code2}, {scale1, scale2}, norm_input_, hyper_, attr);
    } else {
        const Tensor m = state("moment1", count, DType::f32), v = state("moment2", count, DType::f32);
        adamw(p, gradient, m, v, norm_input_, hyper_, attr);
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
    step_graph_->write(norm_input_, &norm, 4);
    step_graph_->write(hyper_, hyper, sizeof hyper);
    step_graph_->run();
}

int64_t FlatAdamW::bytes() const {
    int64_t total = 0;
    for (const State& s : states_) total += s.buffer->bytes;
    return total;
}

}}  // namespace qlora
