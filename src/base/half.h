// half.h - 16-bit floats as bits: IEEE binary16 (f16) and bfloat16, converted with round-to-nearest-even.
#pragma once
#include "qlora.h"

#include <bit>
#include <cstdint>

namespace qlora { inline namespace QLORA_ABI {

inline float f32_from_bf16(uint16_t h) { return std::bit_cast<float>(uint32_t(h) << 16); }

inline uint16_t bf16_from_f32(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40);   // keep NaN a NaN
    return uint16_t((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

inline float f32_from_f16(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = h & 0x7fff;
    // inf, NaN
    if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ff) << 13));
    // Scaling by 2^112 moves the exponent bias from 15 to 127, for subnormals too.
    const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

inline uint16_t f16_from_f32(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00);               // NaN
    if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00);              // rounds to infinity
    if (magnitude < 0x38800000u) {    // subnormal: let the adder round at bit 2^-24
        const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
        return uint16_t(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u));
    }
    return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13));
}

}}  // namespace qlora
