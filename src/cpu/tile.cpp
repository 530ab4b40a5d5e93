// tile.cpp - the tile products, once per instruction set.
//
// product() keeps a block of sums in registers while it walks k: per step it loads a row of b and broadcasts a column
// of a. With AVX-512 the block is 8 x 32 (16 sums, 2 loads, 8 broadcasts a step: the multipliers are the limit), with
// AVX2 4 x 16.
#include "src/cpu/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace tile_room {

namespace scalar {

static void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; j += tile_cols) {
            float sums[tile_cols] = {};
            for (int64_t p = 0; p < k; ++p) {
                const float s = a[i * a_row + p * a_step];
                const float* row = b + p * ldb + j;
                for (int64_t x = 0; x < tile_cols; ++x) sums[x] += s * row[x];
            }
            float* out = c + i * ldc + j;
            for (int64_t x = 0; x < tile_cols; ++x) out[x] = add ? out[x] + sums[x] : sums[x];
        }
    }
}

static void dots(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) {
        float sums[4] = {};                            // four chains, so that the adds overlap
        int64_t i = 0;
        for (; i + 4 <= n; i += 4)
            for (int64_t l = 0; l < 4; ++l) sums[l] += x[i + l] * b[j * ldb + i + l];
        for (; i < n; ++i) sums[0] += x[i] * b[j * ldb + i];
        y[j] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

static void mix(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j)
        for (int64_t i = 0; i < n; ++i) y[i] += s[j] * b[j * ldb + i];
}

static const Tile table{product, dots, mix};

}  // namespace scalar

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {

// 4 x 16
static void block(int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t ldb, float* c,
                  int64_t ldc, bool add) {
    __m256 sums[4][2];
    for (int r = 0; r < 4; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (int64_t p = 0; p < k; ++p) {
        const __m256 b0 = _mm256_loadu_ps(b + p * ldb), b1 = _mm256_loadu_ps(b + p * ldb + 8);
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
            const __m256 s = _mm256_broadcast_ss(a + r * a_row + p * a_step);
            sums[r][0] = _mm256_fmadd_ps(s, b0, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(s, b1, sums[r][1]);
        }
    }
    for (int r = 0; r < 4; ++r)
        for (int h = 0; h < 2; ++h) {
            float* out = c + r * ldc + h * 8;
            _mm256_storeu_ps(out, add ? _mm256_add_ps(_mm256_loadu_ps(out), sums[r][h]) : sums[r][h]);
        }
}

static void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += 16)
        for (int64_t i = 0; i < m; i += 4)
            block(k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, add);
}

static void dots(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    for (int64_t j = 0; j < rows; ++j) {
        const float* row = b + j * ldb;
        __m256 s0 = _mm256_setzero_ps(), s1 = s0;
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) {
            s0 = _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(row + i), s0);
            s1 = _mm256_fmadd_ps(_mm256_loadu_ps(x + i + 8), _mm256_loadu_ps(row + i + 8), s1);
        }
        s0 = _mm256_add_ps(s0, s1);
        __m128 q = _mm_add_ps(_mm256_castps256_ps128(s0), _mm256_extractf128_ps(s0, 1));
        q = _mm_add_ps(q, _mm_movehl_ps(q, q));
        float sum = _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
        for (; i < n; ++i) sum += x[i] * row[i];
        y[j] = sum;
    }
}

static void mix(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256 sums[4];
#pragma GCC unroll 4
        for (int h = 0; h < 4; ++h) sums[h] = _mm256_loadu_ps(y + i + h * 8);
        for (int64_t j = 0; j < rows; ++j) {
            const __m256 weight = _mm256_broadcast_ss(s + j);
#pragma GCC unroll 4
            for (int h = 0; h < 4; ++h)
                sums[h] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(b + j * ldb + i + h * 8), sums[h]);
        }
#pragma GCC unroll 4
        for (int h = 0; h < 4; ++h) _mm256_storeu_ps(y + i + h * 8, sums[h]);
    }
    for (; i < n; ++i)
        for (int64_t j = 0; j < rows; ++j) y[i] += s[j] * b[j * ldb + i];
}

static const Tile table{product, dots, mix};

}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif
namespace avx512 {

// 8 x 32
static void block(int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t ldb, float* c,
                  int64_t ldc, bool add) {
    __m512 sums[8][2];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t p = 0; p < k; ++p) {
        const __m512 b0 = _mm512_loadu_ps(b + p * ldb), b1 = _mm512_loadu_ps(b + p * ldb + 16);
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) {
            const __m512 s = _mm512_set1_ps(a[r * a_row + p * a_step]);
            sums[r][0] = _mm512_fmadd_ps(s, b0, sums[r][0]);
            sums[r][1] = _mm512_fmadd_ps(s, b1, sums[r][1]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
        float* out = c + r * ldc;
        _mm512_storeu_ps(out, add ? _mm512_add_ps(_mm512_loadu_ps(out), sums[r][0]) : sums[r][0]);
        _mm512_storeu_ps(out + 16, add ? _mm512_add_ps(_mm512_loadu_ps(out + 16), sums[r][1]) : sums[r][1]);
    }
}

static void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += 32)
        for (int64_t i = 0; i < m; i += 8)
            block(k, a + i * a_row, a_row, a_step, b + j, ldb, c + i * ldc + j, ldc, add);
}

static void dots(const float* x, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    const __mmask16 tail = __mmask16((1u << (n & 15)) - 1);
    for (int64_t j = 0; j < rows; ++j) {
        const float* row = b + j * ldb;
        __m512 s0 = _mm512_setzero_ps(), s1 = s0;
        int64_t i = 0;
        for (; i + 32 <= n; i += 32) {
            s0 = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(row + i), s0);
            s1 = _mm512_fmadd_ps(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(row + i + 16), s1);
        }
        if (i + 16 <= n) { s0 = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(row + i), s0); i += 16; }
        if (tail) s1 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(tail, x + i), _mm512_maskz_loadu_ps(tail, row + i), s1);
        // _mm512_reduce_add_ps, spelled so that GCC 12 does not warn of itself
        const __m512d sums = _mm512_castps_pd(_mm512_add_ps(s0, s1));
        const __m256 half = _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, sums, 0)),
                                          _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, sums, 1)));
        __m128 q = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        q = _mm_add_ps(q, _mm_movehl_ps(q, q));
        y[j] = _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
    }
}

static void mix(const float* s, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y) {
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512 sums[4];
#pragma GCC unroll 4
        for (int h = 0; h < 4; ++h) sums[h] = _mm512_loadu_ps(y + i + h * 16);
        for (int64_t j = 0; j < rows; ++j) {
            const __m512 weight = _mm512_set1_ps(s[j]);
#pragma GCC unroll 4
            for (int h = 0; h < 4; ++h)
                sums[h] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(b + j * ldb + i + h * 16), sums[h]);
        }
#pragma GCC unroll 4
        for (int h = 0; h < 4; ++h) _mm512_storeu_ps(y + i + h * 16, sums[h]);
    }
    for (; i < n; i += 16) {
        const __mmask16 mask = n - i >= 16 ? __mmask16(0xffff) : __mmask16((1u << (n - i)) - 1);
        __m512 sum = _mm512_maskz_loadu_ps(mask, y + i);
        for (int64_t j = 0; j < rows; ++j)
            sum = _mm512_fmadd_ps(_mm512_set1_ps(s[j]), _mm512_maskz_loadu_ps(mask, b + j * ldb + i), sum);
        _mm512_mask_storeu_ps(y + i, mask, sum);
    }
}

static const Tile table{product, dots, mix};

}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

}  // namespace tile_room

const Tile& tile(Isa isa) {
#if defined(__x86_64__)
    if (isa >= Isa::avx512) return tile_room::avx512::table;
    if (isa == Isa::avx2) return tile_room::avx2::table;
#endif
    (void)isa;
    return tile_room::scalar::table;
}

void transpose(const float* from, int64_t ld, int64_t rows, int64_t cols, float* to, int64_t ldto) {
    int64_t i = 0;
#if defined(__x86_64__)
    for (; i + 4 <= rows; i += 4) {
        int64_t j = 0;
        for (; j + 4 <= cols; j += 4) {
            const float* f = from + i * ld + j;
            __m128 a = _mm_loadu_ps(f), b = _mm_loadu_ps(f + ld), c = _mm_loadu_ps(f + 2 * ld),
                   d = _mm_loadu_ps(f + 3 * ld);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            float* t = to + j * ldto + i;
            _mm_storeu_ps(t, a);
            _mm_storeu_ps(t + ldto, b);
            _mm_storeu_ps(t + 2 * ldto, c);
            _mm_storeu_ps(t + 3 * ldto, d);
        }
        for (; j < cols; ++j)
            for (int64_t r = 0; r < 4; ++r) to[j * ldto + i + r] = from[(i + r) * ld + j];
    }
#endif
    for (; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) to[j * ldto + i] = from[i * ld + j];
}

}}  // namespace qlora
