// blocks_avx2.cpp - the most used block types of GGUF files with AVX2: to floats, and rows of them times a few vectors.
//
// To floats: the same bits as the decoders of src/tensor/blocks.cpp (which say what the bytes mean), because each value is a product that is
// exact or rounds once, and at most one sum. Times vectors: the plan of block_dots_avx512.cpp with vectors of eight.
#include "src/cpu/intrinsics.h"
#include "src/cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace qlora::inline v0_1 {
namespace blocks_avx2_room {

static QLORA_INLINE float half_at(const uint8_t* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}

static QLORA_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
static QLORA_INLINE __m128i low_nibbles(__m128i v) { return _mm_and_si128(v, _mm_set1_epi8(15)); }
static QLORA_INLINE __m128i high_nibbles(__m128i v) { return low_nibbles(_mm_srli_epi16(v, 4)); }

constexpr float none = -0.0f;                         // added to a product, it keeps even the sign of a zero

// out[0..15] = scale * q + offset for 16 signed bytes.
static QLORA_INLINE void put16(__m128i q, float scale, float offset, float* out) {
    const __m256 s = _mm256_set1_ps(scale), o = _mm256_set1_ps(offset);
    _mm256_storeu_ps(out, _mm256_fmadd_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), o));
    _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))), o));
}

static void f16(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(load16(p + 2 * i)));
    for (; i < count; ++i) out[i] = half_at(p + 2 * i);
}

static void q4_0(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 32, p += 18, out += 32) {
        const float d = half_at(p);
        const __m128i q = load16(p + 2), eight = _mm_set1_epi8(8);
        put16(_mm_sub_epi8(low_nibbles(q), eight), d, none, out);
        put16(_mm_sub_epi8(high_nibbles(q), eight), d, none, out + 16);
    }
}

static void q4_1(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 32, p += 20, out += 32) {
        const float d = half_at(p), m = half_at(p + 2);
        const __m128i q = load16(p + 4);
        put16(low_nibbles(q), d, m, out);
        put16(high_nibbles(q), d, m, out + 16);
    }
}

static void q8_0(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 32, p += 34, out += 32) {
        const float d = half_at(p);
        put16(load16(p + 2), d, none, out);
        put16(load16(p + 18), d, none, out + 16);
    }
}

static void q4_k(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += 256, p += 144, out += 256) {
        const float d = half_at(p), dmin = half_at(p + 2);
        for (int pair = 0; pair < 4; ++pair) {         // 32 bytes: a group of 32 in the low nibbles, the next in the high ones
            const GroupScale low = q4_k_group(p + 4, 2 * pair), high = q4_k_group(p + 4, 2 * pair + 1);
            const float scale[2] = {d * float(low.scale), d * float(high.scale)}, offset[2] = {-(dmin * float(low.least)), -(dmin * float(high.least))};
            const __m128i q0 = load16(p + 16 + pair * 32), q1 = load16(p + 32 + pair * 32);
            put16(low_nibbles(q0), scale[0], offset[0], out + pair * 64);
            put16(low_nibbles(q1), scale[0], offset[0], out + pair * 64 + 16);
            put16(high_nibbles(q0), scale[1], offset[1], out + pair * 64 + 32);
            put16(high_nibbles(q1), scale[1], offset[1], out + pair * 64 + 48);
        }
    }
}

static void q6_k(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    const __m128i two_bits = _mm_set1_epi8(0x30), bias = _mm_set1_epi8(32);
    for (int64_t i = 0; i < count; i += 256, p += 210, out += 256) {
        const float d = half_at(p + 208);
        for (int part = 0; part < 4; ++part) {         // 16 places of half part / 2, each in four runs of 32
            const int half = part / 2, start = part % 2 * 16;
            const __m128i l0 = load16(p + half * 64 + start), l1 = load16(p + half * 64 + 32 + start), h = load16(p + 128 + half * 32 + start);
            const __m128i runs[4] = {_mm_or_si128(low_nibbles(l0), _mm_and_si128(_mm_slli_epi16(h, 4), two_bits)),
                                     _mm_or_si128(low_nibbles(l1), _mm_and_si128(_mm_slli_epi16(h, 2), two_bits)),
                                     _mm_or_si128(high_nibbles(l0), _mm_and_si128(h, two_bits)),
                                     _mm_or_si128(high_nibbles(l1), _mm_and_si128(_mm_srli_epi16(h, 2), two_bits))};
            for (int run = 0; run < 4; ++run) {
                const float scale = d * float(int8_t(p[192 + half * 8 + run * 2 + part % 2]));
                put16(_mm_sub_epi8(runs[run], bias), scale, none, out + half * 128 + run * 32 + start);
            }
        }
    }
}

struct Sums { __m256 of[gemv_rows]; };                 // m is a constant wherever it is a parameter of an inlined function
struct Group { __m256 q[4]; };                         // 32 weights before their scale

static QLORA_INLINE float total(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static QLORA_INLINE __m256 signed8(__m128i v) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)); }

// Two times 16 signed bytes.
static QLORA_INLINE Group group_of(__m128i a, __m128i b) { return {{signed8(a), signed8(_mm_srli_si128(a, 8)), signed8(b), signed8(_mm_srli_si128(b, 8))}}; }

// sums += d (q . x) + o (1 . x)
static QLORA_INLINE void add32(const int m, const bool has_offset, const Group& g, float d, float o, const float* x, int64_t ldx, Sums& sums) {
    const __m256 scale = _mm256_set1_ps(d), offset = _mm256_set1_ps(o);
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const float* v = x + t * ldx;
        const __m256 x0 = _mm256_loadu_ps(v), x1 = _mm256_loadu_ps(v + 8), x2 = _mm256_loadu_ps(v + 16), x3 = _mm256_loadu_ps(v + 24);
        const __m256 a = _mm256_fmadd_ps(g.q[1], x1, _mm256_mul_ps(g.q[0], x0)), b = _mm256_fmadd_ps(g.q[3], x3, _mm256_mul_ps(g.q[2], x2));
        sums.of[t] = _mm256_fmadd_ps(scale, _mm256_add_ps(a, b), sums.of[t]);
        if (has_offset) sums.of[t] = _mm256_fmadd_ps(offset, _mm256_add_ps(_mm256_add_ps(x0, x1), _mm256_add_ps(x2, x3)), sums.of[t]);
    }
}

static QLORA_INLINE void add_q4_0(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    const __m128i eight = _mm_set1_epi8(8);
    for (int64_t i = 0; i < cols; i += 32, p += 18) {
        const __m128i q = load16(p + 2);
        add32(m, false, group_of(_mm_sub_epi8(low_nibbles(q), eight), _mm_sub_epi8(high_nibbles(q), eight)), half_at(p), 0, x + i, ldx, sums);
    }
}

static QLORA_INLINE void add_q4_1(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    for (int64_t i = 0; i < cols; i += 32, p += 20) {
        const __m128i q = load16(p + 4);
        add32(m, true, group_of(low_nibbles(q), high_nibbles(q)), half_at(p), half_at(p + 2), x + i, ldx, sums);
    }
}

static QLORA_INLINE void add_q8_0(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    for (int64_t i = 0; i < cols; i += 32, p += 34) add32(m, false, group_of(load16(p + 2), load16(p + 18)), half_at(p), 0, x + i, ldx, sums);
}

static QLORA_INLINE void add_q4_k(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    for (int64_t i = 0; i < cols; i += 256, p += 144) {
        const float d = half_at(p), dmin = half_at(p + 2);
        for (int pair = 0; pair < 4; ++pair) {         // 32 bytes: a group of 32 in the low nibbles, the next in the high ones
            const __m128i q0 = load16(p + 16 + pair * 32), q1 = load16(p + 32 + pair * 32);
            const GroupScale low = q4_k_group(p + 4, 2 * pair), high = q4_k_group(p + 4, 2 * pair + 1);
            const float* at = x + i + pair * 64;
            add32(m, true, group_of(low_nibbles(q0), low_nibbles(q1)), d * float(low.scale), -dmin * float(low.least), at, ldx, sums);
            add32(m, true, group_of(high_nibbles(q0), high_nibbles(q1)), d * float(high.scale), -dmin * float(high.least), at + 32, ldx, sums);
        }
    }
}

static QLORA_INLINE void add_q6_k(const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    const __m128i two_bits = _mm_set1_epi8(0x30), bias = _mm_set1_epi8(32);
    for (int64_t i = 0; i < cols; i += 256, p += 210) {
        const float d = half_at(p + 208);
        for (int part = 0; part < 4; ++part) {         // 16 places of half part / 2, each in four runs of 32
            const int half = part / 2, start = part % 2 * 16;
            const __m128i l0 = load16(p + half * 64 + start), l1 = load16(p + half * 64 + 32 + start), h = load16(p + 128 + half * 32 + start);
            const __m128i runs[4] = {_mm_or_si128(low_nibbles(l0), _mm_and_si128(_mm_slli_epi16(h, 4), two_bits)),
                                     _mm_or_si128(low_nibbles(l1), _mm_and_si128(_mm_slli_epi16(h, 2), two_bits)),
                                     _mm_or_si128(high_nibbles(l0), _mm_and_si128(h, two_bits)),
                                     _mm_or_si128(high_nibbles(l1), _mm_and_si128(_mm_srli_epi16(h, 2), two_bits))};
            QLORA_UNROLL
            for (int run = 0; run < 4; ++run) {
                const __m256 scale = _mm256_set1_ps(d * float(int8_t(p[192 + half * 8 + run * 2 + part % 2])));
                const __m128i q = _mm_sub_epi8(runs[run], bias);
                const __m256 a = signed8(q), b = signed8(_mm_srli_si128(q, 8));
                const float* at = x + i + half * 128 + run * 32 + start;
                QLORA_UNROLL
                for (int t = 0; t < m; ++t)
                    sums.of[t] = _mm256_fmadd_ps(scale, _mm256_fmadd_ps(b, _mm256_loadu_ps(at + t * ldx + 8), _mm256_mul_ps(a, _mm256_loadu_ps(at + t * ldx))), sums.of[t]);
            }
        }
    }
}

static QLORA_INLINE __m256 halves8(const bool bf16, const uint8_t* p) {
    const __m128i h = load16(p);
    return bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)) : _mm256_cvtph_ps(h);
}

// Halves have no scale to put off: two sums a vector keep the additions from waiting for each other. The last eight may be copies with zeros.
static QLORA_INLINE void add_halves(const bool bf16, const int m, const uint8_t* p, int64_t cols, const float* x, int64_t ldx, Sums& sums) {
    __m256 more[gemv_rows];
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) more[t] = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16) {
        const __m256 a = halves8(bf16, p + i * 2), b = halves8(bf16, p + i * 2 + 16);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) {
            sums.of[t] = _mm256_fmadd_ps(a, _mm256_loadu_ps(x + t * ldx + i), sums.of[t]);
            more[t] = _mm256_fmadd_ps(b, _mm256_loadu_ps(x + t * ldx + i + 8), more[t]);
        }
    }
    for (; i < cols; i += 8) {
        const int64_t left = cols - i < 8 ? cols - i : 8;
        uint8_t last[16] = {};
        __builtin_memcpy(last, p + i * 2, size_t(left) * 2);
        const __m256 w = halves8(bf16, last);
        const __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(left)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums.of[t] = _mm256_fmadd_ps(w, _mm256_maskload_ps(x + t * ldx + i, lanes), sums.of[t]);
    }
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) sums.of[t] = _mm256_add_ps(sums.of[t], more[t]);
}

static QLORA_INLINE void rows_of(const DType type, const int m, const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx, float* out) {
    for (int64_t r = 0; r < rows; ++r, data += row_bytes, out += m) {
        Sums sums;
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) sums.of[t] = _mm256_setzero_ps();
        if (type == DType::q4_0) add_q4_0(m, data, cols, x, ldx, sums);
        else if (type == DType::q4_1) add_q4_1(m, data, cols, x, ldx, sums);
        else if (type == DType::q8_0) add_q8_0(m, data, cols, x, ldx, sums);
        else if (type == DType::q4_k) add_q4_k(m, data, cols, x, ldx, sums);
        else if (type == DType::q6_k) add_q6_k(m, data, cols, x, ldx, sums);
        else add_halves(type == DType::bf16, m, data, cols, x, ldx, sums);
        QLORA_UNROLL
        for (int t = 0; t < m; ++t) out[t] = total(sums.of[t]);
    }
}

static QLORA_INLINE void dots_of(const DType type, const void* data, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx, int64_t m, float* out) {
    const uint8_t* bytes = static_cast<const uint8_t*>(data);
    switch (m) {
        case 1: return rows_of(type, 1, bytes, row_bytes, rows, cols, x, ldx, out);
        case 2: return rows_of(type, 2, bytes, row_bytes, rows, cols, x, ldx, out);
        case 3: return rows_of(type, 3, bytes, row_bytes, rows, cols, x, ldx, out);
        default: return rows_of(type, 4, bytes, row_bytes, rows, cols, x, ldx, out);
    }
}

static void dots(DType type, const void* w, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx, int64_t m, float* out) {
#define QLORA_CASE(t) if (type == DType::t) return dots_of(DType::t, w, row_bytes, rows, cols, x, ldx, m, out);
    QLORA_BLOCK_DOT_TYPES(QLORA_CASE)
#undef QLORA_CASE
}

}  // namespace blocks_avx2_room

BlockDecoder block_decoder_avx2(DType type) {
    switch (type) {
        case DType::f16: return blocks_avx2_room::f16;
        case DType::q4_0: return blocks_avx2_room::q4_0;
        case DType::q4_1: return blocks_avx2_room::q4_1;
        case DType::q8_0: return blocks_avx2_room::q8_0;
        case DType::q4_k: return blocks_avx2_room::q4_k;
        case DType::q6_k: return blocks_avx2_room::q6_k;
        default: return nullptr;
    }
}

const BlockDots block_dots_avx2 = blocks_avx2_room::dots;

}  // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
