// blocks.cpp - what the bytes of GGUF's block types mean. Little-endian; scales d and m are f16, q is the stored
// integer.
//
//   block  32: q4_0 d, q[16]              y = d (q - 8)        q4_1 d, m, q[16]           y = d q + m
//              q5_0 d, high[4], q[16]     y = d (q - 16)       q5_1 d, m, high[4], q[16]  y = d q + m
//              q8_0 d, q[32]              y = d q              iq4_nl d, q[16]            y = d curve[q]
//              mxfp4 e, q[16]             y = 2^(e - 128) e2m1[q]
//              4-bit codes: low nibbles are elements 0..15, high nibbles 16..31.
//   block 256: q2_k to q6_k and iq4_xs: 8 or 16 groups, each with an own small integer scale (and minimum) times d (and
//   dmin).
#include "src/tensor/blocks.h"
#include "src/base/half.h"

#include <bit>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace blocks_room {

static_assert(std::endian::native == std::endian::little, "the file formats are little-endian");

inline float half_at(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    return f32_from_f16(h);
}

inline uint32_t u32_at(const uint8_t* p) {
    uint32_t v;
    std::memcpy(&v, p, 4);
    return v;
}

// 32 elements from 16 bytes of nibbles, each through value(code, element).
template <class Value>
inline void nibbles32(const uint8_t* q, float* out, const Value& value) {
    for (int j = 0; j < 16; ++j) {
        out[j] = value(q[j] & 15, j);
        out[j + 16] = value(q[j] >> 4, j + 16);
    }
}

// Each block in turn: body(block, 32 or 256 floats).
template <int elements, int bytes, class Body>
inline void each_block(const void* blocks, float* out, int64_t count, const Body& body) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t done = 0; done < count; done += elements, p += bytes, out += elements) body(p, out);
}

}  // namespace blocks_room

void decode_f32(const void* blocks, float* out, int64_t count) {
    if (count > 0) std::memcpy(out, blocks, size_t(count) * sizeof(float));
}

void decode_f16(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; ++i) out[i] = blocks_room::half_at(p + 2 * i);
}

void decode_bf16(const void* blocks, float* out, int64_t count) {
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t i = 0; i < count; ++i) {
        uint16_t h;
        std::memcpy(&h, p + 2 * i, 2);
        out[i] = f32_from_bf16(h);
    }
}

void decode_q4_0(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 18>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p);
        blocks_room::nibbles32(p + 2, y, [&](int q, int) { return d * float(q - 8); });
    });
}

void decode_q4_1(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 20>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p), m = blocks_room::half_at(p + 2);
        blocks_room::nibbles32(p + 4, y, [&](int q, int) { return d * float(q) + m; });
    });
}

// Bit j of `high` is the fifth bit of element j.
void decode_q5_0(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 22>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p);
        const uint32_t high = blocks_room::u32_at(p + 2);
        blocks_room::nibbles32(p + 6, y, [&](int q, int j) { return d * float((q | int(high >> j & 1) << 4) - 16); });
    });
}

void decode_q5_1(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 24>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p), m = blocks_room::half_at(p + 2);
        const uint32_t high = blocks_room::u32_at(p + 4);
        blocks_room::nibbles32(p + 8, y, [&](int q, int j) { return d * float(q | int(high >> j & 1) << 4) + m; });
    });
}

void decode_q8_0(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 34>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p);
        for (int j = 0; j < 32; ++j) y[j] = d * float(int8_t(p[2 + j]));
    });
}

// scales[16] (low nibble: scale, high nibble: minimum), q[64] of 2 bits, d, dmin. Half h of the block reads bytes
// 32h..32h+31 of q four times, two bits further each time; every 16 elements have the next scale.
void decode_q2_k(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<256, 84>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p + 80), dmin = blocks_room::half_at(p + 82);
        for (int group = 0; group < 16; ++group) {
            const uint8_t* q = p + 16 + (group / 8) * 32 + (group & 1) * 16;
            const int shift = group / 2 % 4 * 2;
            const float scale = d * float(p[group] & 15), minimum = dmin * float(p[group] >> 4);
            for (int j = 0; j < 16; ++j) y[group * 16 + j] = scale * float(q[j] >> shift & 3) - minimum;
        }
    });
}

// high[32], q[64], scales[12], d. The order of q2_k; bit (32-element run r of the block) of high[j] is set where 4 is
// not subtracted.
void decode_q3_k(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<256, 110>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p + 108);
        for (int group = 0; group < 16; ++group) {
            const uint8_t *high = p + (group & 1) * 16, *q = p + 32 + (group / 8) * 32 + (group & 1) * 16;
            const int shift = group / 2 % 4 * 2, run = group / 2;
            const float scale = d * float(q3_k_scale(p + 96, group));
            for (int j = 0; j < 16; ++j)
                y[group * 16 + j] = scale * float((q[j] >> shift & 3) - (high[j] >> run & 1 ? 0 : 4));
        }
    });
}

// d, dmin, scales[12], q[128]: 32 bytes of q hold 64 elements, low nibbles first.
void decode_q4_k(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<256, 144>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p), dmin = blocks_room::half_at(p + 2);
        for (int group = 0; group < 8; ++group) {
            const uint8_t* q = p + 16 + group / 2 * 32;
            const int shift = (group & 1) * 4;
            const GroupScale packed = q4_k_group(p + 4, group);
            const float scale = d * float(packed.scale), minimum = dmin * float(packed.least);
            for (int j = 0; j < 32; ++j) y[group * 32 + j] = scale * float(q[j] >> shift & 15) - minimum;
        }
    });
}

// d, dmin, scales[12], high[32], q[128]: q4_k with a fifth bit, bit `group` of high[j].
void decode_q5_k(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<256, 176>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p), dmin = blocks_room::half_at(p + 2);
        const uint8_t* high = p + 16;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* q = p + 48 + group / 2 * 32;
            const int shift = (group & 1) * 4;
            const GroupScale packed = q4_k_group(p + 4, group);
            const float scale = d * float(packed.scale), minimum = dmin * float(packed.least);
            for (int j = 0; j < 32; ++j)
                y[group * 32 + j] = scale * float((q[j] >> shift & 15) | (high[j] >> group & 1) << 4) - minimum;
        }
    });
}

// low[128], high[64], int8 scales[16], d. Half h: 64 bytes of low, 32 of high, 8 scales; its elements are four runs of
// 32: low nibbles of bytes 0..31, of 32..63, then the high nibbles of the same; run r has bits 2r, 2r+1 of high.
void decode_q6_k(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<256, 210>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p + 208);
        for (int group = 0; group < 16; ++group) {     // 16 elements, one scale
            const int half = group / 8, run = group / 2 % 4, start = (group & 1) * 16;
            const uint8_t *low = p + half * 64 + (run & 1) * 32 + start, *high = p + 128 + half * 32 + start;
            const float scale = d * float(int8_t(p[192 + group]));
            const int shift = run / 2 * 4;
            for (int j = 0; j < 16; ++j)
                y[group * 16 + j] = scale * float(((low[j] >> shift & 15) | (high[j] >> 2 * run & 3) << 4) - 32);
        }
    });
}

void decode_iq4_nl(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 18>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p);
        blocks_room::nibbles32(p + 2, y, [&](int q, int) { return d * float(iq4_curve[q]); });
    });
}

// d, scales_high (u16, 2 bits a group), scales_low[4] (4 bits a group), q[128]: 8 groups, each laid out as iq4_nl.
void decode_iq4_xs(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<256, 136>(blocks, out, count, [](const uint8_t* p, float* y) {
        const float d = blocks_room::half_at(p);
        const int high = p[2] | p[3] << 8;
        for (int group = 0; group < 8; ++group) {
            const int s = (p[4 + group / 2] >> 4 * (group & 1) & 15) | (high >> 2 * group & 3) << 4;
            const float scale = d * float(s - 32);
            blocks_room::nibbles32(p + 8 + group * 16, y + group * 32,
                                   [&](int q, int) { return scale * float(iq4_curve[q]); });
        }
    });
}

void decode_mxfp4(const void* blocks, float* out, int64_t count) {
    blocks_room::each_block<32, 17>(blocks, out, count, [](const uint8_t* p, float* y) {
        // 2^(e - 128): the two smallest are subnormal.
        const float scale = std::bit_cast<float>(p[0] < 2 ? uint32_t(0x200000) << p[0] : uint32_t(p[0] - 1) << 23);
        blocks_room::nibbles32(p + 1, y, [&](int q, int) { return scale * float(e2m1_twice[q]); });
    });
}

}}  // namespace qlora
