// gemm_avx2.cpp - packing and the register tile with AVX2 and FMA: 6 x 16, twelve sums in sixteen registers.
#include "src/cpu/avx2/kernels_avx2.h"
#include "src/cpu/avx2/lanes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace gemm_avx2_room {

using lanes_avx2::first_lanes;

static QLORA_INLINE void transpose(__m256 r[8]) {
    __m256 t[8];
    QLORA_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    QLORA_UNROLL
    for (int i = 0; i < 8; i += 4) {                   // now columns 0 | 4, 1 | 5, 2 | 6, 3 | 7 of four rows
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    QLORA_UNROLL
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    QLORA_UNROLL
    for (int i = 0; i < 8; ++i) r[i] = t[i];
}

static void across(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    float* out = static_cast<float*>(packed);
    for (int64_t l = 0; l < width; l += 8) {
        const __m256i kept = first_lanes(width - l);
        for (int64_t d = 0; d < depth; d += 8) {
            const __m256i inside = first_lanes(depth - d);
            const int64_t deep = depth - d < 8 ? depth - d : 8;
            __m256 r[8];
            QLORA_UNROLL
            for (int i = 0; i < 8; ++i)
                r[i] = l + i < lines ? _mm256_maskload_ps(source + (l + i) * ld + d, inside) : _mm256_setzero_ps();
            transpose(r);
            alignas(32) float rows[8][8];
            QLORA_UNROLL
            for (int i = 0; i < 8; ++i) _mm256_store_ps(rows[i], r[i]);
            for (int64_t i = 0; i < deep; ++i)
                _mm256_maskstore_ps(out + (d + i) * width + l, kept, _mm256_load_ps(rows[i]));
        }
    }
}

static void along(const float* source, int64_t ld, int64_t lines, int64_t depth, int64_t width, void* packed) {
    float* out = static_cast<float*>(packed);
    for (int64_t l = 0; l < width; l += 8) {
        const __m256i kept = first_lanes(width - l), inside = first_lanes(lines - l);
        for (int64_t d = 0; d < depth; ++d)
            _mm256_maskstore_ps(out + d * width + l, kept, _mm256_maskload_ps(source + d * ld + l, inside));
    }
}

static QLORA_INLINE void put(float* c, __m256 sum, __m256i kept, float alpha, float beta) {
    __m256 value = _mm256_mul_ps(sum, _mm256_set1_ps(alpha));
    if (beta != 0) value = _mm256_fmadd_ps(_mm256_set1_ps(beta), _mm256_maskload_ps(c, kept), value);
    _mm256_maskstore_ps(c, kept, value);
}

// height is a constant wherever this is inlined; the sums of a row are the same for every height.
static QLORA_INLINE void tile_of(const int height, const float* a, const float* b, int64_t depth, float* c, int64_t ldc,
                                 int64_t rows, int64_t cols, float alpha, float beta) {
    __m256 sums[6][2];
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (int64_t d = 0; d < depth; ++d, a += 6, b += 16) {
        const __m256 b0 = _mm256_load_ps(b), b1 = _mm256_load_ps(b + 8);
        QLORA_UNROLL
        for (int r = 0; r < height; ++r) {
            const __m256 x = _mm256_broadcast_ss(a + r);
            sums[r][0] = _mm256_fmadd_ps(x, b0, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(x, b1, sums[r][1]);
        }
    }
    const __m256i k0 = first_lanes(cols), k1 = first_lanes(cols - 8);
    QLORA_UNROLL
    for (int r = 0; r < height; ++r) {
        if (r >= rows) break;
        put(c + r * ldc, sums[r][0], k0, alpha, beta);
        if (cols > 8) put(c + r * ldc + 8, sums[r][1], k1, alpha, beta);
    }
}

static void tile(const void* left, const void* panel, int64_t depth, float* c, int64_t ldc, int64_t rows, int64_t cols,
                 float alpha, float beta) {
    const float *a = static_cast<const float*>(left), *b = static_cast<const float*>(panel);
    if (rows > 4) tile_of(6, a, b, depth, c, ldc, rows, cols, alpha, beta);
    else if (rows > 2) tile_of(4, a, b, depth, c, ldc, rows, cols, alpha, beta);
    else tile_of(2, a, b, depth, c, ldc, rows, cols, alpha, beta);
}

}  // namespace gemm_avx2_room

constinit const GemmKernels gemm_avx2{.rows = 6,
                                      .cols = 16,
                                      .granule = 1,
                                      .bytes = 4,
                                      .stretch = 512,
                                      .left_across = gemm_avx2_room::across,
                                      .left_along = gemm_avx2_room::along,
                                      .right_across = gemm_avx2_room::across,
                                      .right_along = gemm_avx2_room::along,
                                      .tile = gemm_avx2_room::tile};

}}  // namespace qlora

QLORA_TARGET_END
#endif
