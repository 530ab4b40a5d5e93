// neftune.h - the noise of NEFTune (arXiv:2310.05914), which the embeddings of a training batch get.
#pragma once
#include "src/model/decoder.h"

namespace qlora { inline namespace QLORA_ABI {

// {rows, hidden}: uniform in +-alpha / sqrt(tokens of the document * hidden), 0 in padding. A function of seed and step
// (the number of the micro-batch), the same on any device.
std::vector<float> neftune_noise(std::span<const Document>, int64_t rows, int64_t hidden, float alpha, uint64_t seed,
                                 uint64_t step);

}}  // namespace qlora
