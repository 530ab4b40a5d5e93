// vectors.h - what files of vector code need: the compiler's intrinsics, target regions, and loops that become
// registers.
#pragma once
#include "qlora.h"

#include <algorithm>

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"   // _mm512_undefined_ps() is meant to be uninitialized
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

// Between QLORA_TARGET_BEGIN(avx2) and QLORA_TARGET_END, outside of all functions, code is for that set: instantiated
// templates and lambdas too, wherever they are used. Headers that are not of that set are included before.
#define QLORA_TARGET_avx2 "avx2,fma,f16c"
#define QLORA_TARGET_avx512 "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"
#define QLORA_TARGET_avx512_bf16 \
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx512vbmi,gfni"
#define QLORA_TARGET_amx QLORA_TARGET_avx512_bf16 ",amx-tile,amx-bf16"

#define QLORA_PRAGMA_AS_WRITTEN(...) _Pragma(#__VA_ARGS__)
#define QLORA_PRAGMA(...) QLORA_PRAGMA_AS_WRITTEN(__VA_ARGS__)
#if defined(__clang__)
#define QLORA_TARGET_BEGIN(set) \
    QLORA_PRAGMA(clang attribute push(__attribute__((target(QLORA_TARGET_##set))), apply_to = function))
#define QLORA_TARGET_END _Pragma("clang attribute pop")
#else
#define QLORA_TARGET_BEGIN(set) _Pragma("GCC push_options") QLORA_PRAGMA(GCC target(QLORA_TARGET_##set))
#define QLORA_TARGET_END _Pragma("GCC pop_options")
#endif

// One loop unrolled completely, so that an array of accumulators becomes registers.
#if defined(__clang__)
#define QLORA_UNROLL _Pragma("unroll")
#else
#define QLORA_UNROLL _Pragma("GCC unroll 16")
#endif
#define QLORA_INLINED __attribute__((always_inline))     // of a lambda
#define QLORA_INLINE inline QLORA_INLINED

#if defined(__x86_64__)
namespace qlora { inline namespace QLORA_ABI {

// Weights that are read once are asked for ahead, line by line in the order of memory although several rows may be read
// side by side: only so do the prefetchers of processors join in. Two Zen 4 cores read 15 GB/s of NF4 in the order of
// four rows, 36 to 45 in that of memory. What is asked for lies behind all rows that are read side by side, whose lines
// are wanted in another order, and goes to second-level cache: four rows of 4 KiB, what comes after them and x do not
// fit into the first level (25 GB/s from there, 36 from here). Two Granite Rapids cores, whose memory gives 32 GB/s,
// read 30.1 of Q8_0 where this begins with what lies behind two rows side by side, but a page ahead, and 28.3 where it
// begins a page beyond. Asking beyond the end of a matrix does no harm.
class Ahead {
public:
    Ahead(const void* start, int64_t beside, int64_t beyond = 4096)    // beside: bytes of the rows read side by side
        : at_(static_cast<const char*>(start) + std::max<int64_t>(beside + beyond, 4096)) {}
    QLORA_INLINE void ask(const int64_t bytes) {       // what the next `bytes` that are read stand for
        for (int64_t line = 0; line < bytes; line += 64) _mm_prefetch(at_ + line, _MM_HINT_T1);
        at_ += bytes;
    }
private:
    const char* at_;
};

// From there to first-level cache, in the order in which `rows` rows side by side are read, 2 KiB ahead in each: these
// are half of the gain above.
QLORA_INLINE void ask_near(const int rows, const uint8_t* at, int64_t row_bytes, const int64_t bytes) {
    QLORA_UNROLL
    for (int r = 0; r < rows; ++r)
        for (int64_t line = 0; line < bytes; line += 64)
            _mm_prefetch(reinterpret_cast<const char*>(at + r * row_bytes + 2048 + line), _MM_HINT_T0);
}

}}  // namespace qlora
#endif
