// fused.h - linear layers that are one matrix in their family's class (Fused::one): joined as files have them, and
// quantized as one, so that codes are those that the class would have.
#pragma once
#include "src/model/draft.h"

namespace qlora { inline namespace QLORA_ABI {

class ThreadPool;

// The parts of a module (weights, or biases) as the one tensor that a file of that world holds.
Weight joined_module(World, const Config&, Module, int64_t layer, std::span<const Weight> parts, std::string name);
// The parts of a module in another type, each like the one that was given.
std::vector<Weight> convert_module(const Config&, Module, int64_t layer, std::span<const Weight> parts, DType,
                                   bool double_quant, ThreadPool* pool = nullptr);

// f(row, layer, name, tensor) for every tensor of a file; of a fused one the row is that of its first part.
using EachInFile = std::function<void(const Row&, int64_t layer, const std::string& name, const DraftTensor&)>;
void for_each_in_file(World, const Draft&, const EachInFile& f);

}}  // namespace qlora
