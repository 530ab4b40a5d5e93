// drop.cpp - the dropout mask: one Philox counter a lane where an instruction set has them, the ends one by one.
//
// uniform01(bits) >= p compares k / 2^24 with p, k = bits >> 8. Both sides are exact in double, so k >= ceil(p 2^24)
// says the same in integers. Counters are dealt to the lanes so that the 4 x 4 transposes inside 128-bit lanes leave
// the words in the order of elements: lane l of vector quarter q holds counter 4 (or 2) l + q.
#include "src/base/rng.h"
#include "src/cpu/kernels.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace drop_room {

void one_by_one(const float* x, float* y, uint64_t first, int64_t count, int32_t least, float factor, uint64_t seed,
                uint64_t stream) {
    Random4 r{};
    for (int64_t i = 0; i < count; ++i) {
        const uint64_t e = first + uint64_t(i);
        if (i == 0 || (e & 3) == 0) r = philox(seed, stream, e >> 2);
        y[i] = int32_t(r.v[e & 3] >> 8) >= least ? x[i] * factor : 0;
    }
}

}  // namespace drop_room

void drop(const Kernels& kernels, const float* x, float* y, int64_t first, int64_t count, float p, uint64_t seed,
          uint64_t stream) {
    const int32_t least = int32_t(std::ceil(double(p) * 0x1p24));
    const float factor = 1 / (1 - p);
    int64_t done = 0;
    if (const DropRuns* runs = kernels.drop) {
        const int64_t head = std::min(count, -first & 3), blocks = (count - head) / runs->block;
        // Counters grow in 32 bits: where the low half would overflow, which takes 2^34 elements, elements go one by
        // one.
        const uint64_t counter = uint64_t(first + head) >> 2;
        if (blocks > 0 && (counter & 0xffffffffu) + uint64_t(blocks * runs->block / 4) <= 0xffffffffu) {
            drop_room::one_by_one(x, y, uint64_t(first), head, least, factor, seed, stream);
            runs->run(x + head, y + head, counter, blocks, least, factor, seed, stream);
            done = head + blocks * runs->block;
        }
    }
    drop_room::one_by_one(x + done, y + done, uint64_t(first + done), count - done, least, factor, seed, stream);
}

}}  // namespace qlora
