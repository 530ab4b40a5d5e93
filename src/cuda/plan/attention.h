// attention.h - which of its kernels attention takes, forward and backward, and their scratch: parts of rows whose keys
// are split, statistics of rows, copies in bf16.
#pragma once
#include "src/cuda/plan/facts.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace attention_room {

constexpr int64_t few_rows = 16;                       // not worth tiles
constexpr int64_t fewest_keys = 64;                    // of a split: less is not worth a block
constexpr int64_t stat_bytes = 16;                     // of a row and head: what the backward pass is given of it

inline int64_t keys_of(const Node& k) { return k.shape[k.shape.size() - 2]; }

// Heads of a group that a block takes: all that fit the registers.
inline int heads_at_once(int64_t group, int64_t size) { return size > 256 || group == 1 ? 1 : group == 2 ? 2 : 4; }
inline int64_t chunks_of(int64_t group, int64_t size) {
    const int64_t heads = heads_at_once(group, size);
    return (group + heads - 1) / heads;
}

// Pieces of a row's keys: enough blocks for a large device where rows are few. It depends on shapes alone.
inline int splits_for(int64_t rows, int64_t keys, const AttentionAttr& a) {
    constexpr int64_t blocks = 512;
    if (rows > few_rows) return 1;
    const int64_t items = rows * a.kv_heads * chunks_of(a.heads / a.kv_heads, a.head_dim);
    return int(std::clamp<int64_t>((blocks + items - 1) / items, 1, (keys + 2 * fewest_keys - 1) / (2 * fewest_keys)));
}
inline int64_t partial_bytes(int64_t rows, int64_t keys, const AttentionAttr& a) {
    const int splits = splits_for(rows, keys, a);
    return splits == 1 ? 0 : rows * a.heads * splits * (a.head_dim + 2) * int64_t(sizeof(float));
}

// ---- By tensor cores, where tiles are possible at all: bf16 by choice, heads of whole chunks, positions in 32 bits.
inline bool may_take_tiles(const GraphImpl& g, const Node& node, int64_t rows, int64_t keys) {
    constexpr int64_t limit = int64_t(1) << 30;
    const Facts& on = facts_of(g);
    const AttentionAttr a = node.attr.get<AttentionAttr>();
    return !on.exact && on.capability >= 80 && node.storage == DType::bf16 && a.head_dim % 8 == 0 &&
           a.head_dim <= 256 && a.scale > 0 && rows < limit && keys < limit;
}

// Of a source that is not in bf16, the copy.
inline int64_t copy_bytes(const Node& n) { return n.storage == DType::bf16 ? 0 : (n.elements() * 2 + 255) / 256 * 256; }

inline bool takes_forward_tiles(const GraphImpl& g, const Node& node) {
    const int64_t rows = node.shape[0];
    return rows > few_rows && may_take_tiles(g, node, rows, keys_of(g.source(node, 1)));
}
inline int64_t forward_copies(const GraphImpl& g, const Node& node) {
    int64_t bytes = 0;
    for (int i = 0; i < 3; ++i) bytes += copy_bytes(g.source(node, i));
    return bytes;
}

inline bool takes_back_tiles(const GraphImpl& g, const Node& node) {
    return may_take_tiles(g, node, g.source(node, 1).shape[0], keys_of(g.source(node, 2)));
}
inline int64_t stats_bytes(const GraphImpl& g, const Node& node) {
    const int64_t items = g.source(node, 1).shape[0] * node.attr.get<AttentionAttr>().heads;
    return (items * stat_bytes + 255) / 256 * 256;
}
inline int64_t back_copies(const GraphImpl& g, const Node& node) {
    int64_t bytes = 0;
    for (int i = 0; i < 4; ++i) bytes += copy_bytes(g.source(node, i));
    return bytes;
}

inline int64_t scratch(const GraphImpl& g, const Node& node) {
    if (takes_forward_tiles(g, node)) return forward_copies(g, node);
    return partial_bytes(node.shape[0], keys_of(g.source(node, 1)), node.attr.get<AttentionAttr>());
}

inline int64_t back_scratch(const GraphImpl& g, const Node& node) {
    return stats_bytes(g, node) + (takes_back_tiles(g, node) ? back_copies(g, node) : 0);
}

}  // namespace attention_room
}  // namespace cuda
}}  // namespace qlora
