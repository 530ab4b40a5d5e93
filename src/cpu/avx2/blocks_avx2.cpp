// blocks_avx2.cpp - the block types of GGUF files with AVX2: 32 weights at a time are made in registers, and stored or
// multiplied.
//
// To floats: the same bits as the decoders of src/tensor/blocks.cpp (which say what the bytes mean). A scale times a
// small integer is exact in 24 bits for all of these types, so multiplying and adding a minimum round once at most.
// Times vectors: two rows side by side, which share the vector and hide each other's waits. The first types
// (QLORA_LATE_DOT_TYPES) put their scales off until 32 products are summed, as block_dots_avx512.cpp does; the others
// have the bits of decoding the row and Vec::dot.
#include "src/cpu/avx2/block_codes_avx2.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx2)

namespace qlora { inline namespace QLORA_ABI {
namespace blocks_avx2_room {

using namespace block_codes_avx2;

constexpr bool is_late(DType type) {                   // its scale is put off
#define QLORA_SAME(t) || type == DType::t
    return false QLORA_LATE_DOT_TYPES(QLORA_SAME);
#undef QLORA_SAME
}

// Codes of at most four bits are looked up or converted; longer ones come out 2^24 times as large, for which their
// scales make up.
constexpr bool is_raised(DType type) {
    return type == DType::q5_0 || type == DType::q5_1 || type == DType::q8_0 || type == DType::q5_k ||
           type == DType::q6_k;
}

static QLORA_INLINE Four numbers_of_codes(const DType type, __m256i codes) {
    if (is_raised(type)) return {{raised(codes, 0), raised(codes, 1), raised(codes, 2), raised(codes, 3)}};
    if (type == DType::q3_k) return look_up(levels_minus_4, codes);
    if (type == DType::iq4_nl || type == DType::iq4_xs) return look_up(levels_iq4, codes);
    if (type == DType::mxfp4) return look_up(levels_e2m1, codes);
    return look_up(levels_plain, codes);
}

static QLORA_INLINE Four numbers_of(const DType type, const uint8_t* p, const int group) {
    if (type == DType::q4_0) return signed_nibbles(p + 2);         // 2^28 times as large
    if (type == DType::q4_1) return plain_nibbles(p + 4);
    return numbers_of_codes(type, codes_of(type, p, group, true));
}

// ---- Scales: number = scale * code + offset, for each half of a group.
struct Prepared { float scale[16], offset[16]; };    // of a block of 256: by group, or by half where a half has its own

static QLORA_INLINE void prepare(const DType type, const uint8_t* p, Prepared& out) {
    if (block_codes_avx2::elements_of(type) != 256) return;
    const RunScales s = scales_of_block(type, p);
    const __m256 by = _mm256_set1_ps(is_raised(type) ? 0x1p-24f : 1.0f);
    _mm256_storeu_ps(out.scale, is_raised(type) ? _mm256_mul_ps(s.scale[0], by) : s.scale[0]);
    if (has_halves(type)) _mm256_storeu_ps(out.scale + 8, is_raised(type) ? _mm256_mul_ps(s.scale[1], by) : s.scale[1]);
    if (has_offset(type)) _mm256_storeu_ps(out.offset, s.offset[0]);
    if (has_offset(type) && has_halves(type)) _mm256_storeu_ps(out.offset + 8, s.offset[1]);
}

struct Scale { __m256 scale[2], offset[2]; };          // of the halves of a group

static QLORA_INLINE Scale scale_of(const DType type, const uint8_t* p, const Prepared& prepared, const int group) {
    const __m256 none = _mm256_set1_ps(-0.0f);         // added to a product, it keeps even the sign of a zero
    if (type == DType::q2_k)
        return {
            {_mm256_broadcast_ss(&prepared.scale[2 * group]), _mm256_broadcast_ss(&prepared.scale[2 * group + 1])},
            {_mm256_broadcast_ss(&prepared.offset[2 * group]), _mm256_broadcast_ss(&prepared.offset[2 * group + 1])}};
    if (has_halves(type))
        return {{_mm256_broadcast_ss(&prepared.scale[2 * group]), _mm256_broadcast_ss(&prepared.scale[2 * group + 1])},
                {none, none}};
    __m256 scale = none, offset = none;
    if (block_codes_avx2::elements_of(type) == 256) {
        scale = _mm256_broadcast_ss(&prepared.scale[group]);
        if (has_offset(type)) offset = _mm256_broadcast_ss(&prepared.offset[group]);
    } else {
        scale = type == DType::mxfp4 ? _mm256_set1_ps(half_power_of_2(p[0]))
                : type == DType::q4_0 ? lowered(half8(p), 0x1p-28f)
                : is_raised(type)     ? lowered(half8(p))
                                      : half8(p);
        if (has_offset(type)) offset = half8(p + 2);
    }
    return {{scale, scale}, {offset, offset}};
}

static QLORA_INLINE Four weights_of(const DType type, const uint8_t* p, const Prepared& prepared, const int group) {
    const Four q = numbers_of(type, p, group);
    const Scale s = scale_of(type, p, prepared, group);
    Four w;
    QLORA_UNROLL
    for (int k = 0; k < 4; ++k) w.of[k] = _mm256_fmadd_ps(s.scale[k / 2], q.of[k], s.offset[k / 2]);
    return w;
}

template <DType type>
static void decode_blocks(const void* blocks, float* out, int64_t count) {
    constexpr int groups = int(block_codes_avx2::elements_of(type) / 32);
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; i += groups * 32, p += block_codes_avx2::bytes_of(type)) {
        Prepared prepared;
        prepare(type, p, prepared);
        QLORA_UNROLL
        for (int group = 0; group < groups; ++group) {
            const Four w = weights_of(type, p, prepared, group);
            QLORA_UNROLL
            for (int k = 0; k < 4; ++k) _mm256_storeu_ps(out + i + group * 32 + k * 8, w.of[k]);
        }
    }
}

// ---- Rows times m vectors. m and the type are constants wherever these are inlined.
struct Sums { __m256 of[gemv_rows][4]; };

// sums += d (q . x) + o (1 . x)
static QLORA_INLINE void add_late(const DType type, const int m, const Four& g, const Scale& s, const float* x,
                                  int64_t ldx, Sums& sums) {
    QLORA_UNROLL
    for (int t = 0; t < m; ++t) {
        const float* v = x + t * ldx;
        const __m256 x0 = _mm256_loadu_ps(v), x1 = _mm256_loadu_ps(v + 8), x2 = _mm256_loadu_ps(v + 16),
                     x3 = _mm256_loadu_ps(v + 24);
        const __m256 a = _mm256_fmadd_ps(g.of[1], x1, _mm256_mul_ps(g.of[0], x0)),
                     b = _mm256_fmadd_ps(g.of[3], x3, _mm256_mul_ps(g.of[2], x2));
        __m256& sum = sums.of[t][0];
        sum = _mm256_fmadd_ps(s.scale[0], _mm256_add_ps(a, b), sum);
        if (has_offset(type))
            sum = _mm256_fmadd_ps(s.offset[0], _mm256_add_ps(_mm256_add_ps(x0, x1), _mm256_add_ps(x2, x3)), sum);
    }
}

// q6_k has a scale for 16 weights. The first halves of four groups are summed before the second ones.
static QLORA_INLINE void add_q6_k(const int m, const uint8_t* p, const Prepared& prepared, const float* x, int64_t ldx,
                                  Sums& sums) {
    QLORA_UNROLL
    for (int half = 0; half < 2; ++half) {
        __m256i codes[4];
        QLORA_UNROLL
        for (int run = 0; run < 4; ++run) codes[run] = codes_of(DType::q6_k, p, half * 4 + run, true);
        QLORA_UNROLL
        for (int i = 0; i < 8; ++i) {
            const int start = i / 4, run = i % 4;
            const __m256 a = raised(codes[run], 2 * start), b = raised(codes[run], 2 * start + 1),
                         scale = scale_of(DType::q6_k, p, prepared, half * 4 + run).scale[start];
            const float* at = x + half * 128 + run * 32 + start * 16;
            QLORA_UNROLL
            for (int t = 0; t < m; ++t)
                sums.of[t][0] = _mm256_fmadd_ps(scale,
                                                _mm256_fmadd_ps(b, _mm256_loadu_ps(at + t * ldx + 8),
                                                                _mm256_mul_ps(a, _mm256_loadu_ps(at + t * ldx))),
                                                sums.of[t][0]);
        }
    }
}

static QLORA_INLINE void add_block(const DType type, const int m, const uint8_t* p, const float* x, int64_t ldx,
                                   Sums& sums) {
    Prepared prepared;
    prepare(type, p, prepared);
    if (type == DType::q6_k) return add_q6_k(m, p, prepared, x, ldx, sums);
    QLORA_UNROLL
    for (int group = 0; group < int(block_codes_avx2::elements_of(type) / 32); ++group, x += 32) {
        if (is_late(type)) {
            add_late(type, m, numbers_of(type, p, group), scale_of(type, p, prepared, group), x, ldx,
                     sums);
            continue;
        }
        const Four w = weights_of(type, p, prepared, group);
        QLORA_UNROLL
        for (int k = 0; k < 4; ++k) {
            QLORA_UNROLL
            for (int t = 0; t < m; ++t)
                sums.of[t][k] = _mm256_fmadd_ps(_mm256_loadu_ps(x + t * ldx + k * 8), w.of[k], sums.of[t][k]);
        }
    }
}

static QLORA_INLINE float total(const DType type, const __m256 (&of)[4]) {
    return codes_avx2::total(is_late(type) ? of[0]
                                           : _mm256_add_ps(_mm256_add_ps(of[0], of[1]), _mm256_add_ps(of[2], of[3])));
}

// `rows` rows side by side.
static QLORA_INLINE void rows_of(const DType type, const int rows, const int m, const uint8_t* data, int64_t row_bytes,
                                 int64_t cols, const float* x, int64_t ldx, float* out) {
    constexpr int most = 2;
    Sums sums[most];
    QLORA_UNROLL
    for (int i = 0; i < rows * m * 4; ++i) sums[i / (m * 4)].of[i / 4 % m][i % 4] = _mm256_setzero_ps();
    Ahead ahead(data, rows * row_bytes);
    for (int64_t i = 0; i < cols; i += block_codes_avx2::elements_of(type), data += block_codes_avx2::bytes_of(type)) {
        ahead.ask(rows * block_codes_avx2::bytes_of(type));
        QLORA_UNROLL
        for (int r = 0; r < rows; ++r) add_block(type, m, data + r * row_bytes, x + i, ldx, sums[r]);
    }
    QLORA_UNROLL
    for (int i = 0; i < rows * m; ++i) out[i] = total(type, sums[i / m].of[i % m]);
}

template <DType type>
static void dots_of(const uint8_t* data, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx,
                    int64_t m, float* out) {
    for_rows(rows, m, [&](int64_t r, const int high, const int many) QLORA_INLINED {
        rows_of(type, high, many, data + r * row_bytes, row_bytes, cols, x, ldx, out + r * many);
    });
}

static void dots(DType type, const void* w, int64_t row_bytes, int64_t rows, int64_t cols, const float* x, int64_t ldx,
                 int64_t m, float* out) {
#define QLORA_CASE(t)     \
    if (type == DType::t) \
        return dots_of<DType::t>(static_cast<const uint8_t*>(w), row_bytes, rows, cols, x, ldx, m, out);
    QLORA_LATE_DOT_TYPES(QLORA_CASE)
    QLORA_BLOCK_ROW_TYPES(QLORA_CASE)
#undef QLORA_CASE
}

}  // namespace blocks_avx2_room

BlockDecoder block_decoder_avx2(DType type) {
#define QLORA_CASE(t) if (type == DType::t) return blocks_avx2_room::decode_blocks<DType::t>;
    QLORA_LATE_DOT_TYPES(QLORA_CASE)
    QLORA_BLOCK_ROW_TYPES(QLORA_CASE)
#undef QLORA_CASE
    return nullptr;
}

constinit const BlockDots block_dots_avx2 = blocks_avx2_room::dots;

}}  // namespace qlora

QLORA_TARGET_END
#endif
