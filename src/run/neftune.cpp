// neftune.cpp - e'[t, i] = e[t, i] + u alpha / sqrt(L d), u uniform in [-1, 1): L tokens in the row, d numbers in each.
// transformers' hook counts the padding of a batch into L; the paper, and this, does not.
#include "src/run/neftune.h"

#include "src/base/rng.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace neftune_room {

constexpr uint64_t stream = 0x6e656674756e65;          // "neftune"

}  // namespace neftune_room

std::vector<float> neftune_noise(std::span<const Document> documents, int64_t rows, int64_t hidden, float alpha,
                                 uint64_t seed, uint64_t step) {
    std::vector<float> noise(size_t(rows * hidden), 0.0f);
    Rng rng{seed, neftune_room::stream + step, 0};
    size_t at = 0;
    for (const Document& d : documents) {
        const size_t count = d.tokens.size() * size_t(hidden);
        const float most = float(double(alpha) / std::sqrt(double(count)));
        for (const size_t end = at + count; at < end; ++at) noise[at] = (2 * rng.uniform() - 1) * most;
    }
    return noise;
}

}}  // namespace qlora
