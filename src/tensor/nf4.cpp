// nf4.cpp - quantization to the 4-bit types of QLoRA, and double quantization of their scales.
//
//   absmax(b) = max |x| of block b (64 elements)        code = nearest of 16 levels to x * (1 / absmax(b))
//   offset = mean absmax, absmax2(g) = max |absmax - offset| of 256 blocks, absmax_code = nearest map entry to (absmax
//   - offset) / absmax2
//
// Where the reference's own implementations differ we follow its GPU kernels, which made the checkpoints there are: a
// reciprocal and a multiplication in every block, the last one included, and a tie goes to the lower code (of fp4: to
// the smaller magnitude). In fp4 they compare with the decimal literals below, up to 3.6e-7 beside the midpoints that
// its CPU build uses, and -0 and +0 are the sign of x: of bf16 weights, whose quotients are few, 6 codes in 10,000
// differ between the two. (The GPU build is compiled with an approximate reciprocal, which may be one unit in the last
// place off ours; only a quotient on a threshold can notice.) Two departures: a block of zeros stores the code of zero
// rather than 0, the same value; and the mean is summed in double, so it is the rounded true mean on every machine,
// where a float sum depends on the build: nf4.h says how far apart that can be.
#include "src/tensor/nf4.h"

#include "src/base/large_pages.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

// Quantiles of the normal distribution, 7 below zero and 8 above, divided by the largest.
const float nf4_codebook[16] = {-1.0f,
                                -0.6961928009986877f,
                                -0.5250730514526367f,
                                -0.39491748809814453f,
                                -0.28444138169288635f,
                                -0.18477343022823334f,
                                -0.09105003625154495f,
                                0.0f,
                                0.07958029955625534f,
                                0.16093020141124725f,
                                0.24611230194568634f,
                                0.33791524171829224f,
                                0.44070982933044434f,
                                0.5626170039176941f,
                                0.7229568362236023f,
                                1.0f};
// Midpoints of neighbouring codes, taken in double and rounded to float: four of them lie halfway between two floats,
// where a decimal literal with an f would round the other way than the reference's table does.
const float nf4_thresholds[15] = {
    float(-0.8480964004993439),  float(-0.6106329262256622),  float(-0.4599952697753906),   float(-0.33967943489551544),
    float(-0.23460740596055984), float(-0.13791173323988914), float(-0.045525018125772476), float(0.03979014977812767),
    float(0.1202552504837513),   float(0.2035212516784668),   float(0.2920137718319893),    float(0.3893125355243683),
    float(0.5016634166240692),   float(0.6427869200706482),   float(0.8614784181118011)};

// Bit 3 is the sign; the magnitudes are 0, 1/16, 8, 12, 4, 6, 2, 3 twelfths: not in the order of the codes.
const float fp4_codebook[16] = {0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
                                0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};

namespace nf4_room {

constexpr int64_t block = 64, block2 = 256;            // the paper's choice, and the reference's default
constexpr int64_t piece = 8192;    // elements decoded at a time: whole blocks of every stored type, 32 KiB of stack

// Between neighbouring magnitudes of fp4 as the GPU kernels spell them, and the codes of those magnitudes from small to
// large.
constexpr float fp4_thresholds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                     0.4166667f,  0.583333f,  0.8333333f};
constexpr uint8_t fp4_order[8] = {0, 1, 6, 7, 4, 5, 2, 3};

// How many thresholds lie strictly below x. All elements pass each threshold together, so that the compiler uses
// vectors.
template <int thresholds>
inline void ranks(const float* threshold, const float* x, int count, int32_t* rank) {
    for (int i = 0; i < count; ++i) rank[i] = 0;
    for (int t = 0; t < thresholds; ++t)
        for (int i = 0; i < count; ++i) rank[i] += x[i] > threshold[t];
}

void codes_of(DType type, const float* x, int count, int32_t* code) {
    if (type == DType::nf4) return ranks<15>(nf4_thresholds, x, count, code);
    float magnitude[block];
    for (int i = 0; i < count; ++i) magnitude[i] = std::fabs(x[i]);
    ranks<7>(fp4_thresholds, magnitude, count, code);
    for (int i = 0; i < count; ++i) code[i] = fp4_order[code[i]] | (x[i] < 0 ? 8 : 0);
}

// The largest magnitude, or infinity where an element is not finite.
float largest(const float* x, int64_t count) {
    float most = 0;
    int bad = 0;
    for (int64_t i = 0; i < count; ++i) {
        const float magnitude = std::fabs(x[i]);
        most = magnitude > most ? magnitude : most;
        bad |= !(magnitude <= FLT_MAX);
    }
    return bad ? INFINITY : most;
}

// x / most as the reference computes it. Below 2^-128 the reciprocal overflows: there the quotient is exact enough and
// finite.
void normalize(const float* x, int64_t count, float most, float* out) {
    const float inverse = 1.0f / most;
    if (most == 0) std::fill_n(out, count, 0.0f);
    else if (inverse > FLT_MAX) for (int64_t i = 0; i < count; ++i) out[i] = x[i] / most;
    else for (int64_t i = 0; i < count; ++i) out[i] = x[i] * inverse;
}

// One block: its scale, and (count + 1) / 2 bytes. An odd end is padded with a zero element.
float quantize_block(DType type, const float* x, int count, uint8_t* packed) {
    const float most = largest(x, count);
    if (most > FLT_MAX) return most;
    float scaled[block] = {};
    int32_t code[block];
    normalize(x, count, most, scaled);
    const int even = count + (count & 1);
    codes_of(type, scaled, even, code);
    for (int i = 0; i < even / 2; ++i) packed[i] = uint8_t(code[2 * i] << 4 | code[2 * i + 1]);
    return most;
}

[[noreturn]] void not_finite(const Weight& w, const float* x, int64_t first, int64_t count) {
    const int64_t i = std::find_if(x, x + count, [](float v) { return !std::isfinite(v); }) - x;
    fail(Errc::numeric, "quantize ", w.name, ": element ", first + i, " is ", x[i],
         "; 4-bit types need finite weights: the file is damaged or was saved from a diverged run");
}

// What a quantized tensor owns.
struct Storage {
    std::vector<uint8_t, LargePages<uint8_t>> codes;
    std::vector<uint8_t> absmax_code;
    std::vector<float> absmax, absmax2;
};

void run_tasks(ThreadPool* pool, int64_t count, const auto& task) {
    if (pool) pool->run(count, task);
    else for (int64_t i = 0; i < count; ++i) task(i, 0);
}

// Replaces s.absmax by 8-bit codes; returns the offset.
float quantize_scales(Storage& s, ThreadPool* pool) {
    const int64_t blocks = int64_t(s.absmax.size()), groups = (blocks + block2 - 1) / block2;
    double sum = 0;                                    // in order: the same for every number of threads
    for (float a : s.absmax) sum += a;
    const float offset = blocks ? float(sum / double(blocks)) : 0.0f;
    s.absmax_code.resize(size_t(blocks));
    s.absmax2.resize(size_t(groups));
    const float* map = dynamic_map_signed();
    run_tasks(pool, groups, [&](int64_t g, int) {
        const int64_t first = g * block2, count = std::min(block2, blocks - first);
        float centred[block2] = {}, scaled[block2] = {};
        for (int64_t i = 0; i < count; ++i) centred[i] = s.absmax[size_t(first + i)] - offset;
        s.absmax2[size_t(g)] = largest(centred, count);
        normalize(centred, count, s.absmax2[size_t(g)], scaled);
        for (int64_t i = 0; i < count; ++i) s.absmax_code[size_t(first + i)] = dynamic_code(map, scaled[i]);
    });
    s.absmax = {};
    return offset;
}

// Seven decades below 1, each with twice the resolution of the one before: the midpoints of an even grid on [0.1, 1],
// scaled. The grid is walked from both ends, each point rounded once: what the reference's linspace gives on any
// processor with fused multiply-add. A double holds the product exactly; fmaf of mingw-w64 does not round as it should.
std::array<float, 256> dynamic_map(bool is_signed) {
    std::array<float, 256> map{};
    size_t n = 0;
    for (int i = 0; i < 7; ++i) {
        const int intervals = is_signed ? 1 << i : 2 << i;
        const float step = (1.0f - 0.1f) / float(intervals), scale = float(std::pow(10.0, i - 6));
        const auto at = [&](int k) {
            return k < (intervals + 1) / 2 ? float(double(0.1f) + double(step) * k)
                                           : float(1.0 - double(step) * (intervals - k));
        };
        for (int k = 0; k < intervals; ++k) {
            const float mean = (at(k) + at(k + 1)) / 2.0f;
            map[n++] = scale * mean;
            if (is_signed) map[n++] = -scale * mean;
        }
    }
    map[n++] = 0.0f;
    map[n++] = 1.0f;
    std::sort(map.begin(), map.end());
    return map;
}

}  // namespace nf4_room

const float* dynamic_map_signed() {
    static const std::array<float, 256> map = nf4_room::dynamic_map(true);
    return map.data();
}

const float* dynamic_map_unsigned() {
    static const std::array<float, 256> map = nf4_room::dynamic_map(false);
    return map.data();
}

uint8_t nf4_code(float x) {
    int32_t code;
    nf4_room::codes_of(DType::nf4, &x, 1, &code);
    return uint8_t(code);
}

uint8_t fp4_code(float x) {
    int32_t code;
    nf4_room::codes_of(DType::fp4, &x, 1, &code);
    return uint8_t(code);
}

// Seven halvings from entry 127 end at a neighbour of x; then the nearer of it and the neighbour on the other side of
// x. A tie stays at the entry where the search ended, so the path of the search is part of the format.
uint8_t dynamic_code(const float* map, float x) {
    int at = 127, below = 0, above = 255;
    for (int step = 64; step > 0; step /= 2) {
        const bool up = x > map[at];
        (up ? below : above) = at;
        at += up ? step : -step;
    }
    if (x > map[at]) return uint8_t(x > (map[above] + map[at]) * 0.5f ? above : at);
    return uint8_t(x < (map[below] + map[at]) * 0.5f ? below : at);
}

Weight quantize_4bit(const Weight& source, DType type, bool double_quant, ThreadPool* pool) {
    if (source.held) return quantize_4bit(source.held->download(), type, double_quant, pool);
    if (!is_4bit(type))
        fail(Errc::argument, "quantize ", source.name, ": the type must be nf4 or fp4, is ", name_of(type));
    const int64_t n = source.elements(), blocks = (n + nf4_room::block - 1) / nf4_room::block;
    const WeightRef flat = source.flat();
    auto s = std::make_shared<nf4_room::Storage>();
    s->codes.resize(size_t(bytes_of(type, n)));
    s->absmax.resize(size_t(blocks));

    nf4_room::run_tasks(pool, (n + nf4_room::piece - 1) / nf4_room::piece, [&](int64_t p, int) {
        const int64_t first = p * nf4_room::piece, count = std::min(nf4_room::piece, n - first);
        float x[nf4_room::piece];
        decode(flat, first, count, x);
        for (int64_t i = 0; i < count; i += nf4_room::block) {
            const int64_t take = std::min(nf4_room::block, count - i);
            const float most = nf4_room::quantize_block(type, x + i, int(take), s->codes.data() + (first + i) / 2);
            if (most > FLT_MAX) nf4_room::not_finite(source, x + i, first + i, take);
            s->absmax[size_t((first + i) / nf4_room::block)] = most;
        }
    });
    source.check();

    Weight result;
    result.name = source.name;
    result.dtype = type;
    result.shape = source.shape;
    result.quant.codebook = type == DType::nf4 ? nf4_codebook : fp4_codebook;
    result.quant.source = is_4bit(source.dtype)                                       ? source.quant.source
                          : source.dtype == DType::f16 || source.dtype == DType::bf16 ? source.dtype
                                                                                      : DType::f32;
    if (double_quant) {
        result.quant.offset = nf4_room::quantize_scales(*s, pool);
        result.quant.absmax_map = dynamic_map_signed();
        result.quant.absmax_code = s->absmax_code.data();
        result.quant.absmax2 = s->absmax2.data();
    } else {
        result.quant.absmax = s->absmax.data();
    }
    result.data = s->codes.data();
    result.owner = std::move(s);
    return result;
}

}}  // namespace qlora
