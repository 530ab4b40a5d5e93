// habits.h - flags that people bring from mlx-lm and from Hugging Face's scripts: each does what it does there, or is
// refused with what to say instead.
#pragma once
#include "examples/finetune/settings.h"

namespace program {

void declare_habits(Flags& flags, Settings& s);
void finish_habits(Settings& s, const Flags& flags);   // after parsing, before all other rules
void apply_last_layers(Settings& s, const qlora::Model& model);        // --num-layers

}  // namespace program
