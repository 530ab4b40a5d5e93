// drop.h - dropout over a run of elements: the mask of rng.h's counter, drawn many counters at a time.
#pragma once
#include "src/cpu/cpu.h"

namespace qlora { inline namespace QLORA_ABI {

// y[i] = x[i] / (1 - p) where element e = first + i is kept, else 0; kept: uniform01(word e % 4 of philox(seed, stream,
// e / 4)) >= p. The same bytes for every instruction set. y may be x.
void drop(const Kernels&, const float* x, float* y, int64_t first, int64_t count, float p, uint64_t seed,
          uint64_t stream);

// The middle of a run in whole blocks, from element 4 * counter on: kept is where the upper 24 bits of a word are at
// least `least`, and what is kept is multiplied by factor. The lower half of the counter does not overflow.
struct DropRuns {
    int64_t block;                                     // elements
    void (*run)(const float* x, float* y, uint64_t counter, int64_t blocks, int32_t least, float factor, uint64_t seed,
                uint64_t stream);
};

}}  // namespace qlora
