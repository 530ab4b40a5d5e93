// checkpoint_identity.h - what makes two runs the same run: everything that decides the numbers of a step, as JSON, so
// that a difference can be told by name with both values.
//
//   options   TrainOptions but for those that only decide how long a run is and how it is computed
//   adapter   dropout, kind, and rank and scale of every adapted layer: the layers as they are, not the words that
//             chose them
//   model     the record that the adapter's saves carry (src/model/base_record.h), its configuration, its tokenizer
//   data      number of rows, and a fingerprint of all tokens and masks
//   machine   what decides rounding only: another one may go on with the run, and says so
#pragma once
#include "src/base/json.h"
#include "src/run/trainer.h"

namespace qlora { inline namespace QLORA_ABI {

struct RunIdentity { Json options, adapter, model, data, machine; };
RunIdentity identity_of(const TrainerImpl&);

// Error{argument} with every difference of a section; what cannot be compared or only rounds differently is returned,
// one sentence each. `folder` is the checkpoint's: those of version 0.1.0 describe their adapter by the PEFT folder in
// it.
std::vector<std::string> check_identity(const TrainerImpl&, const Json& manifest, const std::string& folder,
                                        const std::string& where);
std::optional<RunMachine> machine_of_manifest(const Json& manifest, const std::string& where);

std::string hex(uint64_t);

}}  // namespace qlora
