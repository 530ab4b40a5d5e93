// factor.cuh - vectors of factors: a source that is float values or a stored weight of any type. Values, states and
// dense weights are read where they are; what is in blocks becomes f32 in scratch first.
#pragma once
#include "src/cuda/decode.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

inline bool is_dense(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

// Of scratch, for source i of n: Kernel::scratch.
inline int64_t factor_bytes(const Node& source) {
    return source.op == Op::weight && !is_dense(source.dtype) ? source.elements() * 4 : 0;
}
template <int i> int64_t factor_scratch(const GraphImpl& g, const Node& n) { return factor_bytes(g.source(n, i)); }

inline Values factors(const Call& call, int i, int64_t before = 0) {             // bytes of scratch that are in use
    const WeightRef w = call.matrix(i);
    if (is_dense(w.dtype)) return {w.data, w.dtype};
    void* const decoded = static_cast<char*>(call.scratch) + before;
    decode_rows(call, w, 0, w.rows, {decoded, DType::f32});
    return {decoded, DType::f32};
}

}  // namespace cuda
}}  // namespace qlora
