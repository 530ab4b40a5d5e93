// best_scale.cpp - for codes c that are given, sum w (x - d L[c])^2 is least at
//
//   d = lx / ll,  lx = sum w x L[c],  ll = sum w L[c]^2,  and there it is  sum w x^2 - lx^2 / ll.
//
// The codes are those nearest to x / d, so they change one at a time while t = |largest x| / d grows: element i moves
// to its next level at t = |largest x| * middle / x_i. One walk along t sees them all; it stops in `stops` places and
// keeps the one where lx^2 / ll is largest.
//
// w is 1, or sqrt(mean x^2 + x^2), as the levels say: what was measured to be better. Of SmolLM2 held in NF4
// (perplexity 25.1 on 8 kB of WikiText-2) Q4_0 has a perplexity of 36.1 with these weights, 39.0 with equal ones and
// 41.5 with x^2; IQ4_NL 28.2 with them, 27.4 with equal ones.
//
// The end of the range is not a guess: at t = c * 8 the largest value alone, of 8 levels, loses (1 - 1/c)^2 of its
// square, and a scale that holds it loses half a step in each of the 31 others, which weigh no more, 31/256 of it at
// most: beyond c = 1.53 no scale can be the best. Nor is its beginning, where levels are even: below half the levels,
// half the scale is at least as good.
//
// A scale taken from the extreme value instead (what stock Q4_0 is) puts many of NF4's levels on rounding ties: of
// SmolLM2 held in NF4 such a file has several times the perplexity of its source.
#include "src/tensor/best_scale.h"
#include "src/base/half.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace best_scale_room {

constexpr int stops = 96;                              // a test measures how near to the exact optimum that is

// Relative to the largest, whose square may be beyond what a float holds.
void weigh(const Levels& levels, const float* x, float most, float* w) {
    float mean = 0;
    std::fill_n(w, scale_block, 1.0f);
    if (!levels.weighted) return;
    for (int i = 0; i < scale_block; ++i) {
        w[i] = most > 0 ? (x[i] / most) * (x[i] / most) : 0;
        mean += w[i] / scale_block;
    }
    for (int i = 0; i < scale_block; ++i) w[i] = std::sqrt(mean + w[i]);
}

// All elements pass each middle together, so that the compiler uses vectors.
void nearest(const Levels& levels, const float* x, float inverse, int32_t* code) {
    float scaled[scale_block];
    for (int i = 0; i < scale_block; ++i) scaled[i] = x[i] * inverse;
    for (int i = 0; i < scale_block; ++i) code[i] = 0;
    for (int lower = 0; lower + 1 < levels.count; ++lower)
        for (int i = 0; i < scale_block; ++i) code[i] += scaled[i] > levels.middle[lower];
}

// The walk for scales of one sign; y is sign * x / |largest x|. Returns d / (sign * |largest x|) of the stop that beats
// `best`, or 0.
double walk(const Levels& levels, const float* y, const float* w, double& best) {
    double dx[stops + 1] = {}, dl[stops + 1] = {}, lx = 0, ll = 0, d = 0;
    const float per_level = float(stops) / (levels.high - levels.low);
    int32_t first[scale_block];
    nearest(levels, y, levels.low, first);
    for (int i = 0; i < scale_block; ++i) {
        const int step = y[i] > 0 ? 1 : -1, end = y[i] > 0 ? levels.count - 1 : 0;
        const double level = levels.level[first[i]];
        lx += w[i] * double(y[i]) * level;
        ll += w[i] * level * level;
        if (y[i] == 0) continue;
        const float inverse = 1 / y[i];
        for (int code = first[i]; code != end; code += step) {
            const float t = levels.middle[step > 0 ? code : code - 1] * inverse;
            if (!(t < levels.high)) break;
            const int stop = std::clamp(int((t - levels.low) * per_level) + 1, 0, stops);
            const double from = levels.level[code], to = levels.level[code + step];
            dx[stop] += w[i] * double(y[i]) * (to - from);
            dl[stop] += w[i] * (to * to - from * from);
        }
    }
    for (int stop = 0; stop <= stops; ++stop) {
        lx += dx[stop];
        ll += dl[stop];
        if (!(lx > 0) || !(ll > 0) || !(lx * lx > best * ll)) continue;
        best = lx * lx / ll;
        d = lx / ll;
    }
    return d;
}

// The block under the scale that f16 makes of d: codes, error, and the least-squares scale of those codes.
struct Coded { double error = 0; float next = 0; uint16_t half = 0; int32_t code[scale_block]; };
void encode(const Levels& levels, const float* x, const float* w, float d, Coded& out) {
    constexpr float largest_half = 65504;
    out.half = f16_from_f32(std::clamp(d, -largest_half, largest_half));
    const float held = f32_from_f16(out.half);
    nearest(levels, x, held != 0 ? 1 / held : 0, out.code);
    double lx = 0, ll = 0;
    out.error = 0;
    for (int i = 0; i < scale_block; ++i) {
        const double level = levels.level[out.code[i]], difference = double(x[i]) - double(held) * level;
        out.error += w[i] * difference * difference;
        lx += w[i] * double(x[i]) * level;
        ll += w[i] * level * level;
    }
    out.next = ll > 0 ? float(lx / ll) : 0;
}

}  // namespace best_scale_room

void best_scale(const Levels& levels, const float* x, uint16_t* half, int32_t* code) {
    namespace room = best_scale_room;
    float most = 0, d = 0, w[scale_block];
    double best = 0;
    for (int i = 0; i < scale_block; ++i) most = std::max(most, std::fabs(x[i]));
    room::weigh(levels, x, most, w);
    for (const float sign : {1.0f, -1.0f}) {
        float y[scale_block];
        if (most == 0) break;
        for (int i = 0; i < scale_block; ++i) y[i] = sign * (x[i] / most);
        if (const double found = room::walk(levels, y, w, best); found > 0) d = float(double(sign) * most * found);
    }
    room::Coded found, again;
    room::encode(levels, x, w, d, found);
    room::encode(levels, x, w, found.next, again);    // the codes may have moved a little from those that d came from
    const room::Coded& chosen = again.error < found.error ? again : found;
    *half = chosen.half;
    std::copy_n(chosen.code, scale_block, code);
}

}}  // namespace qlora
