// attention_problem.cuh - attention as its kernels see it: which keys a row sees, and where queries, keys and values
// lie. Formulas: src/ops/attention.cpp and attention_back.cpp.
#pragma once
#include "src/cuda/decode.cuh"
#include "src/cuda/mma.cuh"
#include "src/cuda/plan/attention.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;
constexpr int largest_head = 512;                      // floats of a head, shared by the lanes of a warp

struct Range {
    int64_t first = 0, last = 0;
    __device__ bool has(int64_t key) const { return first <= key && key < last; }
};

// Keys or values: {keys, kv_heads * size}, or {kv_heads, keys, size}: a cache.
struct Keys {
    Values values;
    int64_t key_step = 0, head_step = 0;               // elements from a key to the next, from a kv head to the next
    __device__ int64_t at(int64_t key, int kv) const { return key * key_step + kv * head_step; }
};

struct Problem {
    Values q;                                          // {rows, heads * size}
    Keys k, v;
    const int32_t *first, *last;
    int64_t rows, keys;
    int heads, kv_heads, group, size;                  // group: heads that share a kv head
    float scale, cap;

    int64_t row_step() const { return int64_t(heads) * size; }
    __device__ int64_t at(int64_t row, int head) const { return (row * heads + head) * size; }
    // Clamped, so that a wrong range can give wrong numbers but never read outside of k and v.
    __device__ Range range(int64_t row) const {
        const int64_t from = first[row], to = last[row];
        return {from > 0 ? from : 0, to < keys ? to : keys};
    }
    // What the softmax is taken of, out of q k^T.
    __device__ float score(float product) const {
        const float s = product * scale;
        return cap > 0 ? cap * tanhf(s / cap) : s;
    }
};

// The one type of blocks that store_rows writes.
inline bool is_block(DType t) { return t == DType::q8_0; }

inline Keys keys(const Call& call, int i, const AttentionAttr& a) {
    const Node& n = call.source(i);
    const bool plain = n.storage == DType::f32 || n.storage == DType::f16 || n.storage == DType::bf16;
    if (!plain && (!is_block(n.storage) || a.head_dim % 8 != 0))
        fail(Errc::unsupported, "cuda: attention over keys stored as ", name_of(n.storage), " in heads of ",
             a.head_dim);
    const bool by_head = n.shape.size() == 3;
    return {values(call, i), by_head ? a.head_dim : a.kv_heads * a.head_dim,
            by_head ? keys_of(n) * a.head_dim : a.head_dim};
}

inline Problem problem(const Call& call, int q) {      // sources q, k, v, first, last from position q on
    const AttentionAttr a = call.node.attr.get<AttentionAttr>();
    if (a.head_dim > largest_head)
        fail(Errc::unsupported, "cuda: attention with heads of ", a.head_dim, ", at most ", largest_head);
    return {values(call, q),
            keys(call, q + 1, a),
            keys(call, q + 2, a),
            call.in<int32_t>(q + 3),
            call.in<int32_t>(q + 4),
            call.source(q).shape[0],
            keys_of(call.source(q + 1)),
            int(a.heads),
            int(a.kv_heads),
            int(a.heads / a.kv_heads),
            int(a.head_dim),
            a.scale,
            a.cap};
}

// Eight values in a row, of which `count` are there; the others are zero.
__device__ inline void load8(const Values& from, int64_t at, int count, float (&to)[8]) {
    const bool wide = from.type == DType::f32;
    const void* const place = wide ? static_cast<const void*>(static_cast<const float*>(from.data) + at)
                                   : static_cast<const void*>(static_cast<const uint16_t*>(from.data) + at);
    if (count < 8 || reinterpret_cast<uintptr_t>(place) % 16 != 0) {
        QLORA_UNROLL for (int i = 0; i < 8; ++i) to[i] = i < count ? from[at + i] : 0;
        return;
    }
    const uint4 a = static_cast<const uint4*>(place)[0];
    if (wide) {
        const uint4 b = static_cast<const uint4*>(place)[1];
        const uint32_t bits[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        QLORA_UNROLL for (int i = 0; i < 8; ++i) to[i] = __uint_as_float(bits[i]);
        return;
    }
    const uint32_t pairs[4] = {a.x, a.y, a.z, a.w};
    QLORA_UNROLL for (int i = 0; i < 8; ++i) {
        const uint32_t bits = pairs[i / 2] >> 16 * (i % 2) & 0xffffu;
        to[i] = from.type == DType::bf16 ? f32_of_bf16(bits) : f32_of_f16(bits);
    }
}

// Of blocks: `at` is a multiple of 8, and eight values are in one block.
template <bool blocks> __device__ inline void load8(const Keys& from, int64_t at, int count, float (&to)[8]) {
    if constexpr (!blocks) {
        load8(from.values, at, count, to);
    } else {
        using Block = decode_room::Blocks<DType::q8_0>;
        const uint8_t* const data = static_cast<const uint8_t*>(from.values.data);
        const uint8_t* const block = data + at / Block::elements * Block::bytes;
        const int j = int(at % Block::elements);
        decode_room::Line line{};
        uint32_t codes[2] = {};
        if (count > 0) {
            line = Block::line(block, j);
            codes[0] = Block::four(block, j);
            codes[1] = Block::four(block, j + 4);
        }
        QLORA_UNROLL for (int i = 0; i < 8; ++i)
            to[i] = decode_room::element_of_line<Block>(line, codes[i / 4] >> 8 * (i % 4) & 255);
    }
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
