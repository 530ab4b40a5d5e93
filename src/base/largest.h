// largest.h - the k largest of n numbers, from the largest on. Of equal numbers the first comes first, so that the
// order depends on the numbers alone. A NaN counts as the largest, so that nobody misses it.
#pragma once
#include "src/base/error.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace qlora { inline namespace QLORA_ABI {

struct Ranked { float number; int64_t at; };

// best.size() of them, at most n: for a few, which are kept in order. Pieces in which nothing is above the last of them
// are passed by, and compilers make vectors of that test.
inline void largest(const float* x, int64_t n, std::span<Ranked> best) {
    constexpr int64_t piece = 64;
    const auto before = [](float a, float b) { return std::isnan(a) ? !std::isnan(b) : a > b; };
    const size_t k = best.size();
    size_t count = 0;
    const auto take = [&](int64_t at) {
        if (count == k && !before(x[at], best[k - 1].number)) return;
        size_t place = count < k ? count++ : k - 1;
        for (; place > 0 && before(x[at], best[place - 1].number); --place) best[place] = best[place - 1];
        best[place] = {x[at], at};
    };
    for (int64_t first = 0; k > 0 && first < n; first += piece) {
        const int64_t some = std::min(piece, n - first);
        if (count == k && some == piece) {
            const float least = best[k - 1].number;
            int above = 0;
            for (int64_t i = 0; i < piece; ++i) above |= !(x[first + i] <= least);     // also of a NaN
            if (!above) continue;
        }
        for (int64_t i = first; i < first + some; ++i) take(i);
    }
}

}}  // namespace qlora
