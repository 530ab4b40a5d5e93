// float8.h - numbers and scales in e4m3, the 8-bit float with 4 bits of exponent (bias 7) and 3 of fraction: no
// infinities, and the codes 0x7f and 0xff are not numbers.
//
//   f8_e4m3   w[r, c] = e4m3(code) * scale of its tile (struct Tiles): the tensor, a row, or 128 x 128 elements
//   nvfp4     blocks of 64 elements in 36 bytes, as GGUF's type 40: scale[4], q[4][8]. Group g of 16 elements has
//             scale[g]; the low nibbles of q[g] are its elements 0..7, the high ones 8..15.
//             w = scales[scale code] * e2m1_twice[q],  scales[c] = e4m3(c) * (scale of the tensor) / 2
// The table `scales` is the tensor's own, 256 floats (FourBit::absmax_map): files multiply or divide by the scale of
// the tensor, and each of its products is rounded as theirs. In a block the sign of a scale is not looked at, and 0x7f
// is 0, as GGUF's readers have it. A code of minus zero is zero.
#pragma once
#include "src/tensor/weight.h"

#include <bit>

namespace qlora { inline namespace QLORA_ABI {

// Exponent and fraction go to where f32 has them, with its bias. A subnormal number m / 8 * 2^-6 is (1 + m / 8) * 2^-6
// less 2^-6: no subnormal floats on the way, which some processors are slow with. Masks instead of choices, so that
// loops over this use vectors.
inline float f32_from_e4m3(uint8_t code) {
    const int32_t magnitude = code & 127, small = (magnitude - 8) >> 31, none = (126 - magnitude) >> 31;
    const float whole = std::bit_cast<float>((magnitude << 20) + (120 << 23) + (small & 1 << 23)),
                value = whole - std::bit_cast<float>(small & 0x3c800000);              // 2^-6
    const uint32_t sign = uint32_t(code & 128) << 24;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign | (uint32_t(none) & 0x7fc00000u));
}

const float* nvfp4_scales();                           // [256], of a tensor whose scale is 1
// The table of a tensor: each e4m3 number times `by`, or divided by it. Error{format} beginning with `what` where `by`
// is not a positive number, or one of the scales no float.
std::vector<float> nvfp4_scales(float by, bool divide, const std::string& what);
float nvfp4_tensor_scale(const float* scales);         // that a table was made of

void decode_nvfp4(const void* blocks, const float* scales, float* out, int64_t count);   // whole blocks
void decode_f8_e4m3(const WeightRef&, int64_t first, int64_t count, float* out);         // from any element
// Codes {.., cols / 2}, the low nibble first, and scale codes {.., cols / 16} as folders hold them, to whole blocks.
void pack_nvfp4(const uint8_t* codes, const uint8_t* scales, int64_t elements, uint8_t* blocks);

}}  // namespace qlora
