// schedule.cpp - warm-up, then constant, linear or cosine decay.
#include "src/run/schedule.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

int64_t warmup_steps(const TrainOptions& o, int64_t steps) {
    if (o.warmup_steps > 0) return o.warmup_steps;
    // The ratio is a float: 0.03f is a little less than 0.03, and 0.1f * 10 must be 1 step, not 2.
    return int64_t(std::ceil(double(o.warmup_ratio) * double(steps) - 1e-6 * double(steps)));
}

double learning_rate(const TrainOptions& o, int64_t step, int64_t steps) {
    const double rate = o.learning_rate, least = o.min_learning_rate;
    const int64_t k = step - 1, warm = warmup_steps(o, steps);
    if (k < warm) {
        const double start = o.warmup_start < 0 ? 1 / double(warm + 1) : double(o.warmup_start);
        return rate * (start + (1 - start) * double(k) / double(warm));
    }
    const double span = double(std::max<int64_t>(1, steps - warm));
    switch (o.schedule) {
        case Schedule::constant: return rate;
        case Schedule::linear: return least + (rate - least) * std::max(0.0, double(steps - k) / span);
        case Schedule::cosine: {
            const double progress = std::min(1.0, double(k - warm) / span);
            return least + (rate - least) * std::max(0.0, 0.5 * (1 + std::cos(3.141592653589793 * progress)));
        }
    }
    fail(Errc::argument, "learning rate: schedule ", int(o.schedule), " is none of constant, linear, cosine");
}

}}  // namespace qlora
