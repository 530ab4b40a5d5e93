// block_dots_avx512.cpp - rows of stored weights times a few vectors with AVX-512, without writing the floats of a row
// anywhere.
//
// A group of weights d q + o adds d (q . x) + o (1 . x) to the product: q stays a small integer, and d is multiplied
// once for a group. src/tensor/blocks.cpp says what the bytes mean. The sum of a row and a vector is the same for every
// number of vectors.
#include "src/cpu/avx512/kernels_avx512.h"
#include "src/cpu/avx512/lanes_avx512.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512)

namespace qlora { inline namespace QLORA_ABI {
namespace block_dots_avx512_room {

// The vectors of a call and the sums of one row; m is a constant wherever this is inlined.
struct Sums { __m512 of[gemv_rows]; };

static QLORA_INLINE float half_at(const uint8_t* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}

static QLORA_INLINE __m512i bytes16(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static QLORA_INLINE __m512 signed16(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// sums += d (q0 . x[0..15] + q1 . x[16..31])
static QLORA_INLINE void add32(const int m, __m512 q0, __m512 q1, float d, const float* x, int64_t ldx, Sums& sums) {
    const __m512 scale = _mm512_set1_ps(d);
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const __m512 part = _mm512_fmadd_ps(q1, _mm512_loadu_ps(x + t * ldx + 16),
                                            _mm512_mul_ps(q0, _mm512_loadu_ps(x + t * ldx)));
        sums.of[t] = _mm512_fmadd_ps(scale, part, sums.of[t]);
    }
}

// The same with an offset: sums += d (q . x) + o (1 . x).
static QLORA_INLINE void add32(const int m, __m512 q0, __m512 q1, float d, float o, const float* x, int64_t ldx,
                               Sums& sums) {
    const __m512 scale = _mm512_set1_ps(d), offset = _mm512_set1_ps(o);
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const __m512 x0 = _mm512_loadu_ps(x + t * ldx), x1 = _mm512_loadu_ps(x + t * ldx + 16);
        sums.of[t] = _mm512_fmadd_ps(scale, _mm512_fmadd_ps(q1, x1, _mm512_mul_ps(q0, x0)), sums.of[t]);
        sums.of[t] = _mm512_fmadd_ps(offset, _mm512_add_ps(x0, x1), sums.of[t]);
    }
}

// 0 .. 15 as floats: a permutation looks at the low four bits of an index only, so a byte needs no mask.
static QLORA_INLINE __m512 nibbles() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

static QLORA_INLINE void q4_0(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    const __m512 table = _mm512_sub_ps(nibbles(), _mm512_set1_ps(8));
    for (int64_t i = 0; i < cols; i += 32, p += 18) {
        const __m512i q = bytes16(p + 2);
        add32(m, _mm512_permutexvar_ps(q, table), _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table), half_at(p),
              x + i, ldx, sums);
    }
}

static QLORA_INLINE void q4_1(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    const __m512 table = nibbles();
    for (int64_t i = 0; i < cols; i += 32, p += 20) {
        const __m512i q = bytes16(p + 4);
        add32(m, _mm512_permutexvar_ps(q, table), _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table), half_at(p),
              half_at(p + 2), x + i, ldx, sums);
    }
}

static QLORA_INLINE void q8_0(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    for (int64_t i = 0; i < cols; i += 32, p += 34)
        add32(m, signed16(p + 2), signed16(p + 18), half_at(p), x + i, ldx, sums);
}

static QLORA_INLINE void q4_k(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    const __m512 table = nibbles();
    for (int64_t i = 0; i < cols; i += 256, p += 144) {
        const float d = half_at(p), dmin = half_at(p + 2);
        // 32 bytes: a group of 32 in the low nibbles, the next in the high ones
        for (int pair = 0; pair < 4; ++pair) {
            const __m512i q0 = bytes16(p + 16 + pair * 32), q1 = bytes16(p + 32 + pair * 32);
            const GroupScale low = q4_k_group(p + 4, 2 * pair), high = q4_k_group(p + 4, 2 * pair + 1);
            const float* at = x + i + pair * 64;
            add32(m, _mm512_permutexvar_ps(q0, table), _mm512_permutexvar_ps(q1, table), d * float(low.scale),
                  -dmin * float(low.least), at, ldx, sums);
            add32(m, _mm512_permutexvar_ps(_mm512_srli_epi32(q0, 4), table),
                  _mm512_permutexvar_ps(_mm512_srli_epi32(q1, 4), table), d * float(high.scale),
                  -dmin * float(high.least), at + 32, ldx, sums);
        }
    }
}

static QLORA_INLINE void q6_k(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    const __m512i low4 = _mm512_set1_epi32(15), two = _mm512_set1_epi32(0x30);
    const __m512 bias = _mm512_set1_ps(32);
    for (int64_t i = 0; i < cols; i += 256, p += 210) {
        const float d = half_at(p + 208);
        for (int part = 0; part < 4; ++part) {         // 16 places of half part / 2, each in four runs of 32
            const int half = part / 2, start = part % 2 * 16;
            const __m512i l0 = bytes16(p + half * 64 + start), l1 = bytes16(p + half * 64 + 32 + start),
                          h = bytes16(p + 128 + half * 32 + start);
            const __m512i runs[4] = {
                _mm512_or_epi32(_mm512_and_epi32(l0, low4), _mm512_and_epi32(_mm512_slli_epi32(h, 4), two)),
                _mm512_or_epi32(_mm512_and_epi32(l1, low4), _mm512_and_epi32(_mm512_slli_epi32(h, 2), two)),
                _mm512_or_epi32(_mm512_srli_epi32(l0, 4), _mm512_and_epi32(h, two)),
                _mm512_or_epi32(_mm512_srli_epi32(l1, 4), _mm512_and_epi32(_mm512_srli_epi32(h, 2), two))};
            QLORA_UNROLL
            for (int run = 0; run < 4; ++run) {
                const __m512 q = _mm512_mul_ps(
                    _mm512_sub_ps(_mm512_cvtepi32_ps(runs[run]), bias),
                    _mm512_set1_ps(d * float(int8_t(p[192 + half * 8 + run * 2 + part % 2]))));
                QLORA_UNROLL
                for (int t = 0; t < m; ++t)
                    sums.of[t] = _mm512_fmadd_ps(q, _mm512_loadu_ps(x + t * ldx + i + half * 128 + run * 32 + start),
                                                 sums.of[t]);
            }
        }
    }
}

// Halves have no scale to put off: four sums a vector keep the additions from waiting for each other. Lanes past the
// end are 0.
static QLORA_INLINE __m512 halves16(const bool bf16, const uint8_t* p, int64_t left) {
    const __mmask16 lanes = left >= 16 ? __mmask16(0xffff) : left > 0 ? __mmask16((1u << left) - 1) : __mmask16(0);
    const __m256i h = _mm256_maskz_loadu_epi16(lanes, p);
    return bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)) : _mm512_cvtph_ps(h);
}

// `high` rows side by side share x, which of long rows comes from second-level cache; both are constants.
static QLORA_INLINE void halves(const bool bf16, const int high, const int m, const uint8_t* p, int64_t row_bytes,
                                int64_t cols, const float* x, int64_t ldx, float* out) {
    __m512 part[4][4];                                 // of row r and vector t at r * m + t
    QLORA_UNROLL
    for (int j = 0; j < high * m; ++j) {
        QLORA_UNROLL
        for (int k = 0; k < 4; ++k) part[j][k] = _mm512_setzero_ps();
    }
    Ahead ahead(p, high * row_bytes);
    int64_t i = 0;
    for (; i + 64 <= cols; i += 64) {
        ahead.ask(high * 128);
        QLORA_UNROLL
        for (int k = 0; k < 4; ++k) {
            QLORA_UNROLL
            for (int r = 0; r < high; ++r) {
                const __m512 w = halves16(bf16, p + r * row_bytes + (i + k * 16) * 2, 16);
                QLORA_UNROLL
                for (int t = 0; t < m; ++t)
                    part[r * m + t][k] =
                        _mm512_fmadd_ps(w, _mm512_loadu_ps(x + t * ldx + i + k * 16), part[r * m + t][k]);
            }
        }
    }
    for (; i < cols; i += 16) {
        const __mmask16 lanes = cols - i >= 16 ? __mmask16(0xffff) : __mmask16((1u << (cols - i)) - 1);
        QLORA_UNROLL
        for (int r = 0; r < high; ++r) {
            const __m512 w = halves16(bf16, p + r * row_bytes + i * 2, cols - i);
            QLORA_UNROLL
            for (int t = 0; t < m; ++t)
                part[r * m + t][0] =
                    _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(lanes, x + t * ldx + i), part[r * m + t][0]);
        }
    }
    QLORA_UNROLL
    for (int j = 0; j < high * m; ++j)
        out[j] = _mm512_reduce_add_ps(
            _mm512_add_ps(_mm512_add_ps(part[j][0], part[j][1]), _mm512_add_ps(part[j][2], part[j][3])));
}

// Short rows, as those of an adapter's factors: sixteen share their last additions, which cost more than the products.
// cols is a constant where this is inlined for the ranks that most adapters have.
constexpr int64_t short_cols = 63;
static QLORA_INLINE void sixteen_rows(const bool bf16, const int m, const int64_t cols, const uint8_t* p,
                                      int64_t row_bytes, int64_t rows, const float* x, int64_t ldx, float* out) {
    using namespace lanes_avx512;
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        Vector v[16], sums;
        QLORA_UNROLL
        for (int r = 0; r < 16; ++r) {
            v[r] = zero();
            for (int64_t i = 0; r < rows && i < cols; i += 16)
                v[r] = times_plus(halves16(bf16, p + r * row_bytes + i * 2, cols - i),
                                  load(x + t * ldx + i, first_lanes(cols - i)), v[r]);
        }
        sums = totals(v);
        if (m == 1) {
            store(out, first_lanes(rows), sums);
            continue;
        }
        float one[16];
        store(one, sums);
        for (int64_t r = 0; r < rows; ++r) out[r * m + t] = one[r];
    }
}
static QLORA_INLINE void short_halves(const bool bf16, const int m, const uint8_t* p, int64_t row_bytes, int64_t rows,
                                      int64_t cols, const float* x, int64_t ldx, float* out) {
    Ahead ahead(p, 0);
    for (; rows >= 16; rows -= 16, p += 16 * row_bytes, out += 16 * m) {
        ahead.ask(16 * row_bytes);
        if (cols == 16) sixteen_rows(bf16, m, 16, p, row_bytes, 16, x, ldx, out);
        else sixteen_rows(bf16, m, cols, p, row_bytes, 16, x, ldx, out);
    }
    if (rows > 0) sixteen_rows(bf16, m, cols, p, row_bytes, rows, x, ldx, out);
}

static QLORA_INLINE void rows_of(const DType type, const int m, const uint8_t* data, int64_t row_bytes, int64_t rows,
                                 int64_t cols, const float* x, int64_t ldx, float* out) {
    int64_t r = 0;
    if (type == DType::f16 || type == DType::bf16) {
        const bool bf16 = type == DType::bf16;
        if (cols <= short_cols) return short_halves(bf16, m, data, row_bytes, rows, cols, x, ldx, out);
        for (; m == 1 && r + 4 <= rows; r += 4)
            halves(bf16, 4, 1, data + r * row_bytes, row_bytes, cols, x, ldx, out + r);
        for (; r < rows; ++r) halves(bf16, 1, m, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * m);
        return;
    }
    for (; r < rows; ++r, data += row_bytes) {
        Sums sums;
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums.of[t] = _mm512_setzero_ps();
        if (type == DType::q4_0) q4_0(m, data, cols, x, ldx, sums);
        else if (type == DType::q4_1) q4_1(m, data, cols, x, ldx, sums);
        else if (type == DType::q8_0) q8_0(m, data, cols, x, ldx, sums);
        else if (type == DType::q4_k) q4_k(m, data, cols, x, ldx, sums);
        else q6_k(m, data, cols, x, ldx, sums);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) out[r * m + t] = _mm512_reduce_add_ps(sums.of[t]);
    }
}

static QLORA_INLINE void dots_of(const DType type, const void* data, int64_t row_bytes, int64_t rows, int64_t cols,
                                 const float* x, int64_t ldx, int64_t m, float* out) {
    const uint8_t* bytes = static_cast<const uint8_t*>(data);
    switch (m) {
        case 1: return rows_of(type, 1, bytes, row_bytes, rows, cols, x, ldx, out);
        case 2: return rows_of(type, 2, bytes, row_bytes, rows, cols, x, ldx, out);
        case 3: return rows_of(type, 3, bytes, row_bytes, rows, cols, x, ldx, out);
        default: return rows_of(type, 4, bytes, row_bytes, rows, cols, x, ldx, out);
    }
}

static void dots(DType type, const void* w, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx,
                 int64_t m, float* out) {
#define QLORA_CASE(t) if (type == DType::t) return dots_of(DType::t, w, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_BLOCK_DOT_TYPES(QLORA_CASE)
#undef QLORA_CASE
}

}  // namespace block_dots_avx512_room

constinit const BlockDots block_dots_avx512 = block_dots_avx512_room::dots;

}}  // namespace qlora

QLORA_TARGET_END
#endif
