// drop.h - dropout over a run of elements: the mask of rng.h's counter, drawn many counters at a time.
#pragma once
#include "src/cpu/cpu.h"

namespace qlora { inline namespace QLORA_ABI {

// y[i] = x[i] / (1 - p) where element e = first + i is kept, else 0; kept: uniform01(word e % 4 of philox(seed, stream,
// e / 4)) >= p. The same bytes for every instruction set. y may be x.
void drop(Isa, const float* x, float* y, int64_t first, int64_t count, float p, uint64_t seed, uint64_t stream);

}}  // namespace qlora
