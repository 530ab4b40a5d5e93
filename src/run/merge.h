// merge.h - models in another type, adapters merged into their base, and how far two models are apart.
#pragma once
#include "src/run/decoders.h"

namespace qlora { inline namespace QLORA_ABI {

// Which tensor gets which type:
//   linear layers      the type asked for
//   embedding, head    the same; q8_0 where that is q4_0 or iq4_nl; with nf4 and fp4 they stay as they are
//   norms, biases      floats, as they are
// Rows that are not whole blocks of a type become f16. A tensor that has its type already shares the memory of the
// source.
std::shared_ptr<ModelImpl> convert_model(const ModelImpl&, DType, bool double_quant);

// The same of base + adapter: each adapted layer becomes W + scale B A, where W is the base as it is held (of nf4: the
// values of its codes, which is what the adapter was trained on), summed in f32 and then encoded once.
std::shared_ptr<ModelImpl> merge_lora(const LoraImpl&, DType, bool double_quant);

// Either, written without the result ever being whole in memory: tensors of dense and block types are made as the file
// reaches them (4-bit codes, which are small, before). lora may be null. on_progress returns false to cancel.
void save_model_as(const ModelImpl&, const LoraImpl*, const std::string& path, DType, bool double_quant,
                   const std::function<bool(float)>& on_progress = {}, int64_t shard_bytes = 5'000'000'000);

// Both on the same tokens, in documents of at most 128; either may have an adapter.
Difference measure_difference(std::shared_ptr<const ModelImpl> expected, const LoraImpl* expected_lora,
                              std::shared_ptr<const ModelImpl> actual, const LoraImpl* actual_lora,
                              std::span<const Token>);

}}  // namespace qlora
