// cuda_language.h - CUDA's words outside of functions: qualifiers, vector types, arithmetic of one thread, atomics on
// integers. Rounding is the host's: approximate instructions of a device differ in their last bits.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
#define QLORA_UNROLL

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

// The alignment is CUDA's: the undefined-behaviour sanitizer sees a vector load at any other address.
#define QLORA_VECTORS(type, name, align2, align4)                                                \
    struct alignas(align2) name##2 { type x, y; };                                               \
    struct alignas(align4) name##4 { type x, y, z, w; };                                         \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                             \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
QLORA_VECTORS(float, float, 8, 16)
QLORA_VECTORS(double, double, 16, 16)
QLORA_VECTORS(int32_t, int, 8, 16)
QLORA_VECTORS(uint32_t, uint, 8, 16)
QLORA_VECTORS(uint16_t, ushort, 4, 8)
QLORA_VECTORS(uint8_t, uchar, 2, 4)
#undef QLORA_VECTORS

// ---- Bits.
inline uint32_t __float_as_uint(float f) { return std::bit_cast<uint32_t>(f); }
inline int32_t __float_as_int(float f) { return std::bit_cast<int32_t>(f); }
inline float __uint_as_float(uint32_t u) { return std::bit_cast<float>(u); }
inline float __int_as_float(int32_t i) { return std::bit_cast<float>(i); }
inline long long __double_as_longlong(double d) { return std::bit_cast<long long>(d); }
inline double __longlong_as_double(long long i) { return std::bit_cast<double>(i); }
inline int __popc(uint32_t u) { return std::popcount(u); }
inline int __popcll(unsigned long long u) { return std::popcount(u); }
inline int __clz(int i) { return std::countl_zero(uint32_t(i)); }
inline int __ffs(int i) { return i ? std::countr_zero(uint32_t(i)) + 1 : 0; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
    const uint64_t al = uint32_t(a), ah = a >> 32, bl = uint32_t(b), bh = b >> 32, middle = ah * bl + (al * bl >> 32);
    return ah * bh + (middle >> 32) + ((al * bh + uint32_t(middle)) >> 32);
}
// byte i of the result: byte of {b, a} that the i-th nibble of the selector names, or its sign
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = uint64_t(b) << 32 | a;
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t s = selector >> 4 * i & 0xf, byte = uint32_t(both >> 8 * (s & 7)) & 0xff;
        out |= (s & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
    }
    return out;
}

// ---- Arithmetic. volatile: never fused into an addition
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
inline float __fadd_rn(float a, float b) { volatile float sum = a + b; return sum; }
inline float __fsub_rn(float a, float b) { volatile float difference = a - b; return difference; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { volatile double product = a * b; return product; }
inline double __dadd_rn(double a, double b) { volatile double sum = a + b; return sum; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __sinf(float a) { return std::sin(a); }
inline float __cosf(float a) { return std::cos(a); }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1) : 0; }    // a NaN: 0
inline float rsqrtf(float a) { return 1 / std::sqrt(a); }
inline double rsqrt(double a) { return 1 / std::sqrt(a); }
inline float __int2float_rn(int i) { return float(i); }
inline float __uint2float_rn(unsigned i) { return float(i); }
inline float __double2float_rn(double d) { return float(d); }
inline int __float2int_rn(float f) { return int(std::nearbyint(f)); }
inline int __float2int_rd(float f) { return int(std::floor(f)); }
inline int __float2int_rz(float f) { return int(f); }
inline unsigned __float2uint_rn(float f) { return unsigned(std::nearbyint(f)); }

#define QLORA_LEAST_AND_MOST(type)                              \
    inline type min(type a, type b) { return b < a ? b : a; }   \
    inline type max(type a, type b) { return a < b ? b : a; }
QLORA_LEAST_AND_MOST(int)
QLORA_LEAST_AND_MOST(unsigned)
QLORA_LEAST_AND_MOST(long)
QLORA_LEAST_AND_MOST(unsigned long)
QLORA_LEAST_AND_MOST(long long)
QLORA_LEAST_AND_MOST(unsigned long long)
#undef QLORA_LEAST_AND_MOST
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }

template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> void __stcs(T* at, T value) { *at = value; }

// ---- Atomics, on integers only: sums of floats would depend on the order of threads.
namespace cuda_emulation {
template <class T> concept Counts = std::same_as<T, int> || std::same_as<T, unsigned> ||
                                    std::same_as<T, unsigned long long> || std::same_as<T, long long>;
template <Counts T, class F>
T atomic_change(T* at, const F& change) {
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
}  // namespace cuda_emulation
#define QLORA_ATOMIC(name, result)                                                        \
    template <cuda_emulation::Counts T> T name(T* at, std::type_identity_t<T> value) {    \
        return cuda_emulation::atomic_change(at, [&](T old) { return T(result); });       \
    }
QLORA_ATOMIC(atomicAdd, old + value)
QLORA_ATOMIC(atomicSub, old - value)
QLORA_ATOMIC(atomicMin, value < old ? value : old)
QLORA_ATOMIC(atomicMax, old < value ? value : old)
QLORA_ATOMIC(atomicAnd, old & value)
QLORA_ATOMIC(atomicOr, old | value)
QLORA_ATOMIC(atomicXor, old ^ value)
#undef QLORA_ATOMIC
template <cuda_emulation::Counts T> T atomicExch(T* at, std::type_identity_t<T> value) {
    return cuda_emulation::atomic_change(at, [&](T) { return value; });
}
template <cuda_emulation::Counts T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    return cuda_emulation::atomic_change(at, [&](T old) { return old == expected ? value : old; });
}
inline void __threadfence() {}
inline void __threadfence_block() {}
