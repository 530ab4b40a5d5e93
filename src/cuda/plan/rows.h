// rows.h - scratch of what goes over rows: sums of columns in strips, factors that are decoded first, norms; and of
// sums over everything their parts.
#pragma once
#include "src/cuda/plan/values.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

struct Strips { int64_t rows = 0, count = 0; };        // rows of each but the last
inline Strips strips_of(int64_t rows) {
    const int64_t each = std::max<int64_t>(128, (rows + 63) / 64);
    return {each, (rows + each - 1) / each};
}
inline int64_t columns_bytes(int64_t rows, int64_t n) {                          // of scratch
    const int64_t strips = strips_of(rows).count;
    return strips > 1 ? strips * n * 4 : 0;
}

// ---- Vectors of factors: what is stored in blocks becomes f32 first.
inline bool is_dense(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

// Of scratch, for source i of n: Kernel::scratch.
inline int64_t factor_bytes(const Node& source) {
    return source.op == Op::weight && !is_dense(source.dtype) ? source.elements() * 4 : 0;
}
template <int i> int64_t factor_scratch(const GraphImpl& g, const Node& n) { return factor_bytes(g.source(n, i)); }

// ---- Gradients of vectors that every row has met, and what the rows of a norm have first.
namespace bias_room {

inline int64_t back_scratch(const GraphImpl& g, const Node& n) {
    const Node& dy = g.source(n, 0);
    return columns_bytes(cuda::leading(dy), cuda::last_dim(dy));
}

}  // namespace bias_room

namespace rms_norm_room {

inline int64_t dw_scratch(const GraphImpl& g, const Node& n) {
    const Node& x = g.source(n, 0);
    return cuda::leading(x) * 4 + columns_bytes(cuda::leading(x), cuda::last_dim(x));
}

}  // namespace rms_norm_room

namespace layer_norm_room {

inline int64_t present_bytes(const GraphImpl& g, const Node& n, int i) {
    return n.src[size_t(i)] < 0 ? 0 : factor_bytes(g.source(n, i));
}
inline int64_t scratch(const GraphImpl& g, const Node& n) { return present_bytes(g, n, 1) + present_bytes(g, n, 2); }
inline int64_t back_scratch(const GraphImpl& g, const Node& n) { return present_bytes(g, n, 1); }

inline int64_t dw_scratch(const GraphImpl& g, const Node& n) {
    const Node& x = g.source(n, 0);
    return cuda::leading(x) * 12 + columns_bytes(cuda::leading(x), cuda::last_dim(x));
}

}  // namespace layer_norm_room

namespace embedding_room {

// Of each row, the next one with the same id.
inline int64_t back_scratch(const GraphImpl& g, const Node& n) { return g.source(n, 0).elements() * 8; }

}  // namespace embedding_room

// ---- Sums over everything: a double for each part.
namespace clip_room {

constexpr int64_t task_floats = 16384;                 // as in src/ops/rooms.h
inline int64_t tasks(const Node& x) { return (x.elements() + task_floats - 1) / task_floats; }
inline int64_t scratch(const GraphImpl& g, const Node& n) { return tasks(g.source(n, 0)) * 8; }

}  // namespace clip_room

namespace sum_room {

constexpr int64_t piece = 16384;
inline int64_t pieces(const Node& x) { return (x.elements() + piece - 1) / piece; }
inline int64_t scratch(const GraphImpl& g, const Node& n) { return pieces(g.source(n, 0)) * 8; }

}  // namespace sum_room

// ---- The largest numbers of rows, round by round: in pieces of which each leaves a quarter or less.
namespace top_k_room {

constexpr int64_t least_piece = 512, entry_bytes = 8;  // of an entry, key and column
inline int64_t piece_for(int64_t k) { return std::max(least_piece, 4 * k); }
inline int64_t pieces_of(int64_t n, int64_t piece) { return (n + piece - 1) / piece; }

// What the first round leaves, and the second: the others take turns there.
inline int64_t scratch(const GraphImpl& g, const Node& node) {
    const Node& x = g.source(node, 0);
    const int64_t k = cuda::last_dim(node), piece = piece_for(k), pieces = pieces_of(cuda::last_dim(x), piece);
    if (pieces == 1) return 0;
    const int64_t left = pieces * k;
    return cuda::leading(x) * (left + pieces_of(left, piece) * k) * entry_bytes;
}

}  // namespace top_k_room
}  // namespace cuda
}}  // namespace qlora
