// gemm_avx512.cpp - packing and the register tiles with AVX-512: 12 x 32, twenty-four sums in thirty-two registers, in
// f32 and bf16.
//
// bf16: the instruction multiplies two pairs and adds both products to an f32 sum, so one step of it covers two steps
// of depth.
#include "src/cpu/intrinsics.h"
#include "src/cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_avx512_room {

constexpr int tall = 12;

static QLORA_INLINE __mmask16 first_lanes(int64_t n) {
    return n >= 16 ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1);
}

// 16 x 16 words of 32 bits, in four rounds: pairs of rows, pairs of those, then quarters of registers.
static QLORA_INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    QLORA_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    QLORA_UNROLL
    for (int i = 0; i < 16; i += 4) {                  // r[i + j]: column j of each quarter, of rows i .. i + 3
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) {                      // even quarters of rows 0-7 and 8-15, then the odd ones
        t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        t[j + 8] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
    }
    QLORA_UNROLL
    for (int j = 0; j < 4; ++j) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 4], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 4], 0xdd);
        r[j + 4] = _mm512_shuffle_i32x4(t[j + 8], t[j + 12], 0x88);
        r[j + 12] = _mm512_shuffle_i32x4(t[j + 8], t[j + 12], 0xdd);
    }
}

static QLORA_INLINE void store_transposed(const __m512i r[16], int64_t deep, __mmask16 kept, int64_t width,
                                          int32_t* out) {
    if (deep >= 16) {
        QLORA_UNROLL
        for (int i = 0; i < 16; ++i) _mm512_mask_storeu_epi32(out + i * width, kept, r[i]);
    } else {
        QLORA_UNROLL
        for (int i = 0; i < 16; ++i) {
            if (i < deep) _mm512_mask_storeu_epi32(out + i * width, kept, r[i]);
        }
    }
}

static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t l = 0; l < width; l += 16) {
        for (int64_t d = 0; d < depth; d += 16) {
            const __mmask16 inside = first_lanes(depth - d);
            __m512i r[16];
            QLORA_UNROLL
            for (int i = 0; i < 16; ++i)
                r[i] = _mm512_maskz_loadu_epi32(l + i < lines ? inside : __mmask16(0),
                                                source + (l + i < lines ? l + i : 0) * ld + d);
            transpose(r);
            store_transposed(r, depth - d, first_lanes(width - l), width, out + d * width + l);
        }
    }
}

static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    float* out = static_cast<float*>(packed);
    for (int64_t d = 0; d < depth; ++d) {
        for (int64_t l = 0; l < width; l += 16)
            _mm512_mask_storeu_ps(out + d * width + l, first_lanes(width - l),
                                  _mm512_maskz_loadu_ps(first_lanes(lines - l), source + d * ld + l));
    }
}

static QLORA_INLINE void put(float* c, __m512 sum, __mmask16 kept, float alpha, float beta) {
    __m512 value = _mm512_mul_ps(sum, _mm512_set1_ps(alpha));
    if (beta != 0) value = _mm512_fmadd_ps(_mm512_set1_ps(beta), _mm512_maskz_loadu_ps(kept, c), value);
    _mm512_mask_storeu_ps(c, kept, value);
}

static QLORA_INLINE void put_all(const int height, const int wide, const __m512 sums[tall][2], float* c, int64_t ldc,
                                 int64_t rows, int64_t cols, float alpha, float beta) {
    const __mmask16 k0 = first_lanes(cols), k1 = first_lanes(cols - 16);
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) {
        if (r >= rows) break;
        put(c + r * ldc, sums[r][0], k0, alpha, beta);
        if (wide > 1) put(c + r * ldc + 16, sums[r][1], k1, alpha, beta);
    }
}

// The rows of c are far apart: asking for them before the long loop hides the way to memory.
static QLORA_INLINE void prefetch(const float* c, int64_t ldc, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
        _mm_prefetch(reinterpret_cast<const char*>(c + r * ldc), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(c + r * ldc + 16), _MM_HINT_T0);
    }
}

// height and wide (vectors of 16 columns) are constants wherever this is inlined; the sums are the same for all of
// them.
static QLORA_INLINE void tile_of(const int height, const int wide, const float* a, const float* b, int64_t depth,
                                 float* c, int64_t ldc, int64_t rows, int64_t cols, float alpha, float beta) {
    __m512 sums[tall][2];
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    prefetch(c, ldc, rows);
    for (int64_t d = 0; d < depth; ++d, a += tall, b += 32) {
        const __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);
        QLORA_UNROLL
        for (int r = 0; r < height; ++r) {
            const __m512 x = _mm512_set1_ps(a[r]);
            sums[r][0] = _mm512_fmadd_ps(x, b0, sums[r][0]);
            if (wide > 1) sums[r][1] = _mm512_fmadd_ps(x, b1, sums[r][1]);
        }
    }
    put_all(height, wide, sums, c, ldc, rows, cols, alpha, beta);
}

static void tile(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta) {
    const float *a = static_cast<const float*>(left), *b = static_cast<const float*>(panel);
    if (cols > 16) {
        if (rows > 8) tile_of(12, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else if (rows > 4) tile_of(8, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else tile_of(4, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
    } else {
        if (rows > 6) tile_of(12, 1, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else tile_of(6, 1, a, b, depth, c, ldc, rows, cols, alpha, beta);
    }
}

}  // namespace gemm_avx512_room

const GemmKernels gemm_avx512{12, 32, 1, 4, gemm_avx512_room::across, gemm_avx512_room::along, gemm_avx512_room::tile};

}}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_bf16_room {

using gemm_avx512_room::first_lanes;
using gemm_avx512_room::tall;

static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t l = 0; l < width; l += 16) {
        for (int64_t d = 0; d < depth; d += 32) {
            const __mmask16 low = first_lanes(depth - d), high = first_lanes(depth - d - 16);
            __m512i r[16];
            QLORA_UNROLL
            for (int i = 0; i < 16; ++i) {
                const bool there = l + i < lines;
                const float* row = source + (there ? l + i : 0) * ld + d;
                const __m512 first = _mm512_maskz_loadu_ps(there ? low : __mmask16(0), row),
                             second = _mm512_maskz_loadu_ps(there ? high : __mmask16(0), row + 16);
                r[i] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
            }
            gemm_avx512_room::transpose(r);
            gemm_avx512_room::store_transposed(r, (depth - d + 1) / 2, first_lanes(width - l), width,
                                               out + d / 2 * width + l);
        }
    }
}

static QLORA_INLINE __m512i widened(const float* source, __mmask16 inside) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, source)));
}

static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    int32_t* out = static_cast<int32_t*>(packed);
    for (int64_t d = 0; d < depth; d += 2) {
        for (int64_t l = 0; l < width; l += 16) {
            const __mmask16 inside = first_lanes(lines - l);
            const __m512i even = widened(source + d * ld + l, inside);
            const __m512i odd = d + 1 < depth ? widened(source + (d + 1) * ld + l, inside) : _mm512_setzero_si512();
            _mm512_mask_storeu_epi32(out + d / 2 * width + l, first_lanes(width - l),
                                     _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
    }
}

static QLORA_INLINE void tile_of(const int height, const int wide, const int32_t* a, const int32_t* b, int64_t depth,
                                 float* c, int64_t ldc, int64_t rows, int64_t cols, float alpha, float beta) {
    __m512 sums[tall][2];
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    gemm_avx512_room::prefetch(c, ldc, rows);
    for (int64_t d = 0; d < depth; d += 2, a += tall, b += 32) {
        const __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + 16);
        QLORA_UNROLL
        for (int r = 0; r < height; ++r) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32(a[r]);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], x, b0);
            if (wide > 1) sums[r][1] = _mm512_dpbf16_ps(sums[r][1], x, b1);
        }
    }
    gemm_avx512_room::put_all(height, wide, sums, c, ldc, rows, cols, alpha, beta);
}

static void tile(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta) {
    const int32_t *a = static_cast<const int32_t*>(left), *b = static_cast<const int32_t*>(panel);
    if (cols > 16) {
        if (rows > 8) tile_of(12, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else if (rows > 4) tile_of(8, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else tile_of(4, 2, a, b, depth, c, ldc, rows, cols, alpha, beta);
    } else {
        if (rows > 6) tile_of(12, 1, a, b, depth, c, ldc, rows, cols, alpha, beta);
        else tile_of(6, 1, a, b, depth, c, ldc, rows, cols, alpha, beta);
    }
}

}  // namespace gemm_bf16_room

const GemmKernels gemm_bf16{12, 32, 2, 2, gemm_bf16_room::across, gemm_bf16_room::along, gemm_bf16_room::tile};

}}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
