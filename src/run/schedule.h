// schedule.h - the learning rate of every step, with the meaning Hugging Face gives the names.
//
// With k = step - 1, W warm-up steps and N steps in all:
//   k < W       rate * (s + (1 - s) * k / W)            s = warmup_start: 1 / (W + 1) by default, so that the only
//                                                       step of a short run learns; 0 is Hugging Face's, where the
//                                                       first step of a warm-up changes nothing
//   constant    rate
//   linear      min + (rate - min) * (N - k) / (N - W)
//   cosine      min + (rate - min) * (1 + cos(pi * (k - W) / (N - W))) / 2
// Hugging Face's "constant" ignores a warm-up; here it is its "constant_with_warmup".
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

int64_t warmup_steps(const TrainOptions&, int64_t steps);              // warmup_steps, or ceil(warmup_ratio * steps)
double learning_rate(const TrainOptions&, int64_t step, int64_t steps);        // step: 1-based

}}  // namespace qlora
