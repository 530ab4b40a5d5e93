// recommended.h - how a model's makers say that its tokens are to be drawn: generation_config.json of a folder,
// general.sampling.* of a GGUF file (the keys of llama.cpp).
#pragma once
#include "src/base/json.h"
#include "src/format/gguf.h"
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

Sampling recommended_sampling(const ModelImpl&);       // what they do not say is as Sampling has it

// The same said by a file of the other world: what its makers say and nothing else.
void write_recommended(const ModelImpl&, GgufWriter&);
void write_recommended(const ModelImpl&, Json& generation_config);

}}  // namespace qlora
