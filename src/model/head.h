// head.h - the head in fewer bits than it is stored in.
#pragma once
#include "src/base/threads.h"
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

// The matrix that the logits are products with: of its own, or the embedding.
inline bool is_head(const Config& c, const Row& row) { return row.slot == (c.tied ? Slot::embedding : Slot::head); }
// In q8_0 (8.5 bits a number), q4_0 or iq4_nl (4.5), unless it has no more bits already. Of a model without memory, the
// sizes. pool may be null.
WeightPtr smaller_head(const WeightPtr& head, DType type, bool outline, const std::string& model, ThreadPool* pool);
// Another model, the other weights being those of this one.
std::shared_ptr<ModelImpl> model_with_head(const ModelImpl&, DType);

}}  // namespace qlora
