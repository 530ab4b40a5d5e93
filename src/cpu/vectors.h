// vectors.h - what files of vector code need: the compiler's intrinsics, target regions, and loops that become
// registers.
#pragma once

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
#define QLORA_TARGET_avx512_bf16 "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"

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
