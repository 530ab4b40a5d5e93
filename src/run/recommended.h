// recommended.h - how a model's makers say that its tokens are to be drawn.
#pragma once
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

Sampling recommended_sampling(const ModelImpl&);       // what they do not say is as Sampling has it

}}  // namespace qlora
