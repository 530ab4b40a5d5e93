// preset.h - settings for small data. The paper's defaults (16 rows a step, rank 64 with alpha / rank = 1/4, 2e-4) are
// for tens of thousands of rows; of a few hundred they make a dozen steps that change next to nothing. For those: 60 to
// 200 steps, rank 8 with alpha / rank = 2, 1e-3 falling as a cosine, and from 40 rows on a held-out share, measured
// twice an epoch, by which the best adapter is kept.
#pragma once
#include "examples/finetune/settings.h"

namespace program {

constexpr int64_t few_steps = 60;                      // below, the paper's recipe has hardly begun

// Before the rows are split: the held-out share of `rows` rows. Flags that were given stay.
float small_share(int64_t rows);
// Fills what no flag says, for `rows` rows to train on.
void apply_small(Settings& s, const Flags& flags, int64_t rows);
// The flags that apply_small() stands for, as they can be typed.
std::string small_flags(int64_t rows);

}  // namespace program
