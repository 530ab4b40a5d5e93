// best_scale.h - the scale of a block whose codes stand for fixed levels, by weighted least squares.
#pragma once
#include "qlora.h"

#include <cstdint>
#include <initializer_list>

namespace qlora { inline namespace QLORA_ABI {

// The numbers that the codes 0, 1, ... stand for, ascending, times the scale of the block.
struct Levels {
    static constexpr int most = 32;
    int count = 0;
    float low, high;    // the search: how many levels the largest magnitude of a block is long
    bool weighted;                                     // an element weighs sqrt(mean x^2 + x^2), not 1
    float level[most] = {}, middle[most] = {};         // middle[i]: between level i and i + 1

    // `count` whole numbers from `first`.
    constexpr Levels(int first, int number, float from, float to, bool weigh)
        : count(number), low(from), high(to), weighted(weigh) {
        for (int i = 0; i < count; ++i) level[i] = float(first + i);
        for (int i = 0; i + 1 < count; ++i) middle[i] = (level[i] + level[i + 1]) / 2;
    }
    constexpr Levels(const int8_t (&values)[16], float from, float to, bool weigh)
        : count(16), low(from), high(to), weighted(weigh) {
        for (int i = 0; i < count; ++i) level[i] = values[i];
        for (int i = 0; i + 1 < count; ++i) middle[i] = (level[i] + level[i + 1]) / 2;
    }
};

constexpr int scale_block = 32;                        // elements that share a scale

// d, as f16 holds it (its bits are *half), and for every element the code of the level nearest to x / d (a tie: the
// lower code), such that sum w (x - d level[code])^2 is least. d may be negative: levels need not be symmetric. Where
// no scale of f16 is small enough d is 0.
void best_scale(const Levels& levels, const float* x, uint16_t* half, int32_t* code);

}}  // namespace qlora
