// preset.cpp - settings for small data.
#include "examples/finetune/preset.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace program {

struct Recipe { int64_t epochs, step_rows, eval_every; };

// Three passes: small data is overfitted by then, and the best adapter is found on the way. About 100 steps of them, 60
// at least.
static Recipe recipe(int64_t rows) {
    const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
    int64_t epochs = 3;
    const int64_t step_rows = std::clamp<int64_t>(int64_t(std::llround(double(rows * epochs) / 100)), 1, 16),
                  steps = ceil_div(rows, step_rows);
    if (steps * epochs < few_steps) epochs = ceil_div(few_steps, steps);
    return {epochs, step_rows, std::max<int64_t>(1, ceil_div(steps, 2))};
}

// A tenth, but no fewer than 8 rows: the loss of fewer says little.
float small_share(int64_t rows) { return rows < 40 ? 0 : std::max(0.1f, 8 / float(rows)); }

void apply_small(Settings& s, const Flags& flags, int64_t rows) {
    const Recipe r = recipe(rows);
    if (!flags.given("--epochs")) s.train.epochs = double(r.epochs);
    if (!flags.given("--grad-accum")) s.train.accumulate = std::max<int64_t>(1, r.step_rows / s.train.batch);
    if (!flags.given("--learning-rate")) s.train.learning_rate = 1e-3f;
    if (!flags.given("--lr-scheduler")) s.train.schedule = qlora::Schedule::cosine;
    if (!flags.given("--lora-r")) s.lora.rank = 8;
    if (!flags.given("--lora-alpha")) s.lora.alpha = 2 * float(s.lora.rank);
    if (!flags.given("--eval-every")) s.eval_every = r.eval_every;
}

std::string small_flags(int64_t rows) {
    const Recipe r = recipe(rows);
    char text[160];
    std::snprintf(text, sizeof text,
                  "--epochs %lld --grad-accum %lld --lr 1e-3 --lr-scheduler cosine --lora-r 8 --lora-alpha 16%s",
                  static_cast<long long>(r.epochs), static_cast<long long>(r.step_rows),
                  rows >= 40 ? " --val-split 0.1" : "");
    return text;
}

}  // namespace program
