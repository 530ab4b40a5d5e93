// checkpoint.h - everything a training run needs to go on, in a folder that appears whole or not at all.
//
//   adapter/          the adapter as a PEFT folder: Lora::load() reads it, resume() does not
//   factors.bin       f32, LoraImpl::values as it lies in memory
//   moment1.bin ...   the optimizer's states, under their names
//   manifest.json     written last: format and library version, counters, the run's identity (checkpoint_identity.h),
//                     and the size and hash of every file above
//
// What a run draws at random follows from seed and step number, so no generator's state is kept.
#pragma once
#include "src/run/trainer.h"

namespace qlora { inline namespace QLORA_ABI {

void save_checkpoint(const TrainerImpl&, const std::string& folder);
// Error and no change if anything is missing, damaged or from another run; what could not be compared or is rounded
// otherwise, a sentence each.
std::vector<std::string> load_checkpoint(TrainerImpl&, const std::string& folder);
std::optional<RunMachine> machine_of_checkpoint(const std::string& folder);

}}  // namespace qlora
