// values.cuh - floats of the graph where they are stored: f32, or in 16 bits - results that products read (bf16), and
// caches of keys and values (bf16, f16). Kernels compute in f32 and convert where they read and write.
#pragma once
#include "src/cuda/device.cuh"
#include "src/cuda/plan/values.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

__device__ inline float f32_of_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }

// IEEE binary16, the same bits as f32_from_f16 of src/base/half.h: scaling by 2^112 moves the bias from 15 to 127.
__device__ inline float f32_of_f16(uint32_t bits) {
    const uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude << 13) * 0x1p112f));
}

// To nearest even; the same bits as f16_from_f32.
__device__ inline uint32_t f16_bits(float f) {
    const uint32_t u = __float_as_uint(f), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7e00u;
    if (magnitude >= 0x477ff000u) return sign | 0x7c00u;
    if (magnitude < 0x38800000u)                       // subnormal: the adder rounds at bit 2^-24
        return sign | (__float_as_uint(__fadd_rn(__uint_as_float(magnitude), 0.5f)) - 0x3f000000u);
    return sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
}

// The branch is the same for all threads and costs nothing beside the load.
__device__ inline float Values::operator[](int64_t i) const {
    if (type == DType::f32) return static_cast<const float*>(data)[i];
    const uint32_t bits = static_cast<const uint16_t*>(data)[i];
    return type == DType::bf16 ? f32_of_bf16(bits) : f32_of_f16(bits);
}

__device__ inline void Places::set(int64_t i, float value) const {
    if (type == DType::f32) static_cast<float*>(data)[i] = value;
    else static_cast<uint16_t*>(data)[i] = uint16_t(type == DType::bf16 ? bf16_bits(value) : f16_bits(value));
}

}  // namespace cuda
}}  // namespace qlora
