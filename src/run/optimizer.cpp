// optimizer.cpp - drives AdamW. The norm and the step are two graphs, so that a step with a non-finite gradient can be
// left out.
#include "src/run/optimizer.h"

#include "src/cpu/cpu.h"
#include "src/ops/ops.h"
#include "src/tensor/nf4.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace optimizer_room {

constexpr int64_t block = 256;                         // elements a scale: what bitsandbytes uses since 0.44

int64_t blocks(int64_t count) { return (count + block - 1) / block; }

// One block of 8-bit AdamW. The update uses the new moments before they are rounded to codes.
struct Step8 { float rate, root, keep, factor, beta1, beta2, epsilon; };
void update_block(const Step8& s, int64_t n, float* p, const float* g, uint8_t* code1, uint8_t* code2, float& scale1,
                  float& scale2) {
    const float* map1 = dynamic_map_signed();
    const float* map2 = dynamic_map_unsigned();
    float m[block], v[block], max1 = 0, max2 = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float gi = g[i] * s.factor;
        m[i] = map1[code1[i]] * scale1;
        v[i] = map2[code2[i]] * scale2;
        m[i] += (gi - m[i]) * (1 - s.beta1);
        v[i] = v[i] * s.beta2 + gi * gi * (1 - s.beta2);
        p[i] = p[i] * s.keep - s.rate * m[i] / (std::sqrt(v[i]) / s.root + s.epsilon);
        max1 = std::max(max1, std::fabs(m[i]));
        max2 = std::max(max2, v[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
        code1[i] = dynamic_code(map1, max1 > 0 ? m[i] / max1 : 0);
        code2[i] = dynamic_code(map2, max2 > 0 ? v[i] / max2 : 0);
    }
    scale1 = max1;
    scale2 = max2;
}

}  // namespace optimizer_room

bool is_8bit(Optimizer o) { return o == Optimizer::adamw_8bit || o == Optimizer::paged_adamw_8bit; }

int64_t optimizer_bytes(Optimizer o, int64_t count) {
    return is_8bit(o) ? 2 * count + 8 * optimizer_room::blocks(count) : 8 * count;
}

AdamW::AdamW(std::shared_ptr<BackendImpl> backend, BufferRef values, BufferRef gradients, int64_t count,
             const TrainOptions& options)
    : backend_(std::move(backend)),
      values_(std::move(values)),
      gradients_(std::move(gradients)),
      count_(count),
      options_(options) {
    norm_graph_ = std::make_unique<GraphImpl>(backend_);
    norm_ = global_norm(norm_graph_->state({count_}, gradients_));
    norm_graph_->output(norm_);
    if (is_8bit(options.optimizer)) {
        if (!backend_->cpu())
            fail(Errc::unsupported, "optimizer: 8-bit states are computed on the CPU only, the adapter is on ",
                 backend_->name(), "; use paged_adamw");
        const int64_t blocks = optimizer_room::blocks(count_);
        states_ = {{"moment1_codes", backend_->allocate(count_), false},
                   {"moment2_codes", backend_->allocate(count_), false},
                   {"moment1_scales", backend_->allocate(blocks * 4)},
                   {"moment2_scales", backend_->allocate(blocks * 4)}};
        return;
    }
    states_ = {{"moment1", backend_->allocate(count_ * 4)}, {"moment2", backend_->allocate(count_ * 4)}};
    step_graph_ = std::make_unique<GraphImpl>(backend_);
    GraphImpl& g = *step_graph_;
    norm_input_ = g.input({1});
    hyper_ = g.input({4});
    const AdamWAttr attr{options.beta1, options.beta2, options.epsilon, options.weight_decay, options.max_grad_norm};
    adamw(g.state({count_}, values_), g.state({count_}, gradients_), g.state({count_}, states_[0].buffer),
          g.state({count_}, states_[1].buffer), norm_input_, hyper_, attr);
}

void AdamW::clear_gradients() {
    // a MiB at a time: no second copy on the host
    const std::vector<char> zeros(size_t(std::min<int64_t>(count_ * 4, 1 << 20)));
    for (int64_t at = 0; at < count_ * 4; at += int64_t(zeros.size()))
        backend_->upload(*gradients_, at, zeros.data(), std::min(int64_t(zeros.size()), count_ * 4 - at));
}

float AdamW::norm() {
    norm_graph_->run();
    float value = 0;
    norm_graph_->read(norm_, &value, 4);
    return value;
}

void AdamW::step(float learning_rate, int64_t t, float factor, float norm) {
    if (is_8bit(options_.optimizer)) {
        const float clip = options_.max_grad_norm > 0 ? std::min(1.0f, options_.max_grad_norm / (norm * factor + 1e-6f))
                                                      : 1.0f;
        return step_8bit(learning_rate, t, factor * clip);
    }
    const float hyper[4] = {learning_rate, float(t), factor, 0};
    step_graph_->write(norm_input_, &norm, 4);
    step_graph_->write(hyper_, hyper, sizeof hyper);
    step_graph_->run();
}

void AdamW::step_8bit(float learning_rate, int64_t t, float factor) {
    using optimizer_room::block;
    const double correction1 = 1 - std::pow(double(options_.beta1), double(t)),
                 correction2 = 1 - std::pow(double(options_.beta2), double(t));
    const optimizer_room::Step8 s{float(double(learning_rate) / correction1),
                                  float(std::sqrt(correction2)),
                                  float(1 - double(learning_rate) * double(options_.weight_decay)),
                                  factor,
                                  options_.beta1,
                                  options_.beta2,
                                  options_.epsilon};
    float* p = static_cast<float*>(values_->data);
    const float* g = static_cast<const float*>(gradients_->data);
    uint8_t *code1 = static_cast<uint8_t*>(states_[0].buffer->data),
            *code2 = static_cast<uint8_t*>(states_[1].buffer->data);
    float *scale1 = static_cast<float*>(states_[2].buffer->data),
          *scale2 = static_cast<float*>(states_[3].buffer->data);
    backend_->cpu()->pool.run(optimizer_room::blocks(count_), [&](int64_t b, int) {
        const int64_t at = b * block, n = std::min(block, count_ - at);
        optimizer_room::update_block(s, n, p + at, g + at, code1 + at, code2 + at, scale1[b], scale2[b]);
    });
}

int64_t AdamW::bytes() const {
    int64_t total = 0;
    for (const State& s : states_) total += s.buffer->bytes;
    return total;
}

}}  // namespace qlora
