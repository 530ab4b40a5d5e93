// blocks.h - decoders of dense numbers and of GGUF's blocks: count elements, a multiple of the block; nothing need be
// aligned.
#pragma once
#include "qlora.h"

#include <cstdint>

namespace qlora { inline namespace QLORA_ABI {

// The curve of iq4: 16 levels, denser around zero.
constexpr int8_t iq4_curve[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Twice the values of the 4-bit float e2m1, which makes them integers; the scale makes up for it.
constexpr int8_t e2m1_twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The 6-bit scale and minimum of one of the eight groups of q4_k and q5_k, packed in 12 bytes: four whole in the low
// bits of bytes 0-3 and 4-7, four in pieces.
struct GroupScale { int scale, least; };
inline GroupScale q4_k_group(const uint8_t* s, int group) {
    const int at = group & 3;
    if (group < 4) return {s[at] & 63, s[at + 4] & 63};
    return {(s[at + 8] & 15) | (s[at] >> 6) << 4, s[at + 8] >> 4 | (s[at + 4] >> 6) << 4};
}

// Scale j of q3_k, 16 of 6 bits in 12 bytes: low nibbles in bytes 0..7, the two high bits in bytes 8..11.
inline int q3_k_scale(const uint8_t* s, int j) {
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4, high = s[8 + (j & 3)] >> (2 * (j >> 2)) & 3;
    return (low | high << 4) - 32;
}

void decode_f32(const void* blocks, float* out, int64_t count);
void decode_f16(const void* blocks, float* out, int64_t count);
void decode_bf16(const void* blocks, float* out, int64_t count);
void decode_q4_0(const void* blocks, float* out, int64_t count);
void decode_q4_1(const void* blocks, float* out, int64_t count);
void decode_q5_0(const void* blocks, float* out, int64_t count);
void decode_q5_1(const void* blocks, float* out, int64_t count);
void decode_q8_0(const void* blocks, float* out, int64_t count);
void decode_q2_k(const void* blocks, float* out, int64_t count);
void decode_q3_k(const void* blocks, float* out, int64_t count);
void decode_q4_k(const void* blocks, float* out, int64_t count);
void decode_q5_k(const void* blocks, float* out, int64_t count);
void decode_q6_k(const void* blocks, float* out, int64_t count);
void decode_iq4_nl(const void* blocks, float* out, int64_t count);
void decode_iq4_xs(const void* blocks, float* out, int64_t count);
void decode_mxfp4(const void* blocks, float* out, int64_t count);

}}  // namespace qlora
