// round16_avx512_bf16.cpp - x as 16-bit integers for products of bytes: v = 256 high + low, both signed. The high bytes
// of 64 elements lie together, and so do their low ones.
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"
#include "src/cpu/avx512_bf16/scaled_codes_avx512_bf16.h"
#include "src/cpu/vectors.h"

#include <bit>

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {
namespace round16_avx512_bf16_room {

// Of absolute values as integers, among which a NaN is the largest and an infinity comes next.
static float largest(const float* x, int64_t count) {
    __m512i sizes = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i += 16)
        sizes = _mm512_max_epi32(sizes, _mm512_castps_si512(_mm512_abs_ps(_mm512_loadu_ps(x + i))));
    return std::bit_cast<float>(_mm512_reduce_max_epi32(sizes));
}

// Elements that share a scale.
constexpr int64_t share_of(const Order16 order) {
    return order == Order16::blocks ? 32 : order == Order16::pairs ? 64 : 256;
}

// Where the high bytes of 16 elements go. Of blocks: elements 0 to 15 of four groups, then 16 to 31 of them; of pairs:
// the even elements of two groups, then the odd ones; of integers: 64 in their order; of sixteens: a group of the first
// half of a run, and the same one of the last half. The low bytes follow in the same way.
constexpr int64_t place16(const Order16 order, const int64_t at) {
    if (order == Order16::blocks) return at / 128 * 256 + at % 32 / 16 * 64 + at % 128 / 32 * 16;
    if (order == Order16::pairs) return at / 128 * 256 + at % 128 / 2;
    if (order == Order16::sixteens) return at % 128 / 32 * 128 + at / 128 * 32 + at % 32;
    return at / 64 * 128 + at % 64;
}
constexpr int64_t low_bytes(const Order16 order) {
    return order == Order16::integers || order == Order16::sixteens ? 64 : 128;
}

static QLORA_INLINE void put(const Order16 order, __m128i bytes, int8_t* to) {
    if (order != Order16::pairs) return _mm_store_si128(reinterpret_cast<__m128i*>(to), bytes);
    const __m128i apart =
        _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), apart);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 64), _mm_unpackhi_epi64(apart, apart));
}

// Of 16 elements, what dots16_avx512_bf16.cpp adds to products of pairs, divided by 256: its levels are 32896 too much,
// and of what it leaves out 128 times the low byte is known.
static QLORA_INLINE float offset_of_pairs(__m512i v, __m512i high) {
    const __m512i low = _mm512_sub_epi32(v, _mm512_slli_epi32(high, 8));
    return -128.5f * float(_mm512_reduce_add_epi32(v)) + 0.5f * float(_mm512_reduce_add_epi32(low));
}

// Of each lane of products with weights of Q3_K, what the bytes that stand for 0 add to it.
static void take_zero(Run16& run) {
    const __m512i zero = _mm512_set1_epi8(scaled_codes_avx512_bf16::zero_of_q3_k);
    __m512i sum = _mm512_setzero_si512();
    for (int part = 0; part < 2; ++part) {             // high bytes, low ones
        sum = _mm512_slli_epi32(sum, 8);
        for (int i = 0; i < 4; ++i)
            sum = _mm512_dpbusd_epi32(sum, zero, _mm512_load_si512(run.values + i * 64 + part * 32));
    }
    _mm512_storeu_si512(run.minus, _mm512_sub_epi32(_mm512_setzero_si512(), sum));
}

// Elements [at, at + share) of a run.
static void round_share(const Order16 order, const float* x, int64_t at, Run16& run) {
    const int64_t share = share_of(order), end = at + share;
    const float most = largest(x, share), infinity = __builtin_inff();
    const float scale = most < infinity ? most < 1e-30f ? 0 : most / most16 : __builtin_nanf("");
    const __m512 by = _mm512_set1_ps(scale > 0 ? most16 / most : 0);
    float offset = 0;
    for (; at < end; x += 16, at += 16) {
        const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), by));
        const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(128)), 8);
        int8_t* bytes = reinterpret_cast<int8_t*>(run.values) + place16(order, at);
        put(order, _mm512_cvtepi32_epi8(high), bytes);
        put(order, _mm512_cvtepi32_epi8(v), bytes + low_bytes(order));
        run.scales[at / 32] = scale;
        if (order == Order16::pairs) {
            offset += offset_of_pairs(v, high);
            run.sums32[at / 64] = scale * offset;
            continue;
        }
        run.sums[at / 16] = scale * float(_mm512_reduce_add_epi32(v));
        if (at % 32) run.sums32[at / 32] = run.sums[at / 16 - 1] + run.sums[at / 16];
    }
    if (order == Order16::sixteens) take_zero(run);
}

}  // namespace round16_avx512_bf16_room

// The last 64 of a row come twice where nothing follows them, so that two rows can meet them side by side.
void round16_avx512_bf16(const float* x, int64_t cols, Order16 order, Run16* to) {
    using namespace round16_avx512_bf16_room;
    const int64_t share = share_of(order);
    if (cols % 256) to[cols / 256] = {};
    for (int64_t i = 0; i < cols; i += share) {
        round_share(order, x + i, i % 256, to[i / 256]);
        if (cols % 256 == 64 && i / 256 == cols / 256) round_share(order, x + i, i % 256 + 64, to[i / 256]);
    }
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
