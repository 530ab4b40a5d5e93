// dots16.h - rows of stored weights times vectors held as 16-bit integers: the products of generation where
// Compute::f32 was not asked for.
//
// 32 neighbours of x share a scale, by which the largest of them is most16 (or minus that; with 4-bit codes 64 do, and
// Order16 says who else):
//     x[i] = scale * v[i] + e,   |e| <= scale / 2
// A code of a weight is a small integer too, so a group's sum of products is exact in 32 bits and is scaled once, by
// both scales:
//     w . x = sum over groups of  d * scale * (code . v) + o * scale * (1 . v)     for weights d code + o
// What that rounds is 2e-5 to 1.4e-4 of the length of x, a tenth of what bf16 rounds; it needs half of the instructions
// of floats, since two products are added in one and no code is made a float.
#pragma once
#include "src/cpu/gemm.h"

namespace qlora { inline namespace QLORA_ABI {

// More would not be two signed bytes, and as little as 127 more would be left out where it meets the lower part of a
// level (dots16_avx512_bf16.cpp).
constexpr float most16 = 127 * 256;

// 256 elements of x, as 16-bit integers or as their two bytes, v = 256 high + low, both signed: in which order is the
// business of a set (round16_avx2.cpp, round16_avx512_bf16.cpp).
struct alignas(64) Run16 {
    int16_t values[256];
    float scales[8];                                   // of each 32; of each 64 twice in Order16::pairs
    float sums[16];                                    // of x as it was rounded, of each 16
    float sums32[8];                                   // of each 32, where and as a set's products want them; in
                                                       // Order16::pairs what they want for each of four times 64
    int16_t minus_high[16], minus_low[16];             // of bytes of each 16, where a set's products want them
    alignas(64) int32_t minus[16];                     // of lanes of products, where a set's want it
};
// How x is held: for blocks of GGUF files, for 4-bit codes, for blocks whose scales are integers, so that their
// products are summed as integers too and 256 of x share a scale (eight times the same one in Run16::scales); for the
// same where 16 weights have such a scale; or for blocks whose codes are too large for products of bytes.
enum class Order16 : uint8_t { blocks, pairs, integers, sixteens, words };
constexpr int orders16 = 5;
inline int64_t runs16(int64_t cols) { return (cols + 255) / 256; }    // of a vector

struct Dots16 {
    // cols, a multiple of 32 (64 in pairs), to whole runs: zeros fill the last. An infinity or a NaN makes the scale of
    // its group NaN; what is smaller than 1e-30 becomes 0.
    void (*round)(const float* x, int64_t cols, Order16, Run16* to);
    // out[r * m + t] = row r . x[t] for m <= gemv_rows vectors, ldx runs apart. The same bytes for each vector whatever
    // m is.
    void (*blocks)(DType, const void* weights, int64_t row_bytes, int64_t rows, int64_t cols, const Run16* x,
                   int64_t ldx, int64_t m, float* out);
    // Rows [first, first + rows) of 4-bit codes in runs of 64.
    void (*codes)(const WeightRef&, int64_t first, int64_t rows, const Run16* x, int64_t ldx, int64_t m, float* out);
    Order16 (*order)(DType);                           // of a type of blocks
    float most_level = 8191;                           // what the largest level of a codebook becomes
};

}}  // namespace qlora
