// speaker.h - the small committed model that speaks, made to go on speaking, and adapters that change what it says.
#pragma once
#include "src/base/access.h"
#include "tests/run/run_support.h"

#include <cmath>

namespace run_support {

inline qlora::Model shakespeare(int threads = 1, qlora::Compute compute = qlora::Compute::f32) {
    return qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(threads, compute)});
}

// It likes to say nothing more: here it may not.
inline qlora::Sampling endless(const qlora::Model& model, qlora::Sampling s) {
    s.mask = [ends = impl_of(model)->tokenizer->end_of_reply](std::span<const qlora::Token>, std::span<float> scores) {
        for (const qlora::Token t : ends) scores[size_t(t)] = -HUGE_VALF;
    };
    return s;
}

inline qlora::Lora random_adapter(const qlora::Model& model, uint64_t seed) {
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 4, .seed = seed});
    std::vector<float> values = values_of(lora);
    qlora::Rng rng{seed, 7, 0};
    for (float& v : values) v = (float(rng.below(2001)) / 1000 - 1) * 0.1f;
    impl_of(lora)->base->backend->upload(*impl_of(lora)->values, 0, values.data(), int64_t(values.size()) * 4);
    return lora;
}

}  // namespace run_support
