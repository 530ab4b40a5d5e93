// rng.h - random numbers as a function of (seed, stream, counter): no hidden state, the same on every thread and
// device.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). The CUDA kernels use this very
// function.
#pragma once
#include "qlora.h"

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define QLORA_HOST_DEVICE __host__ __device__
#else
#define QLORA_HOST_DEVICE
#endif

namespace qlora { inline namespace QLORA_ABI {

struct Random4 { uint32_t v[4]; };

QLORA_HOST_DEVICE inline Random4 philox(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = uint32_t(stream), c3 = uint32_t(stream >> 32);
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
        const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
        c1 = uint32_t(p1); c3 = uint32_t(p0); c0 = n0; c2 = n2;
        k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// [0, 1) with 24 bits: every value is exact in float.
QLORA_HOST_DEVICE inline float uniform01(uint32_t bits) { return float(bits >> 8) * 0x1p-24f; }

// A sequential reader of one stream, for code that draws one number after another.
struct Rng {
    // counter counts single 32-bit draws; all three are the state to save
    uint64_t seed = 0, stream = 0, counter = 0;
    uint32_t next() {
        const Random4 r = philox(seed, stream, counter >> 2);
        return r.v[counter++ & 3];
    }
    float uniform() { return uniform01(next()); }
    uint64_t below(uint64_t n) {                       // unbiased enough for shuffles: 64 bits scaled to n <= 2^32
        const uint64_t hi = next(), lo = next();
        return (hi * n + ((lo * n) >> 32)) >> 32;      // no product needs more than 64 bits
    }
    float normal() {                                   // Box-Muller
        const float u = 1.0f - uniform(), v = uniform();
        return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318530718f * v);
    }
};

}}  // namespace qlora
