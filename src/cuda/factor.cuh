// factor.cuh - vectors of factors: a source that is float values or a stored weight of any type. Values, states and
// dense weights are read where they are; what is in blocks becomes f32 in scratch first.
#pragma once
#include "src/cuda/decode.cuh"
#include "src/cuda/plan/rows.h"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

inline Values factors(const Call& call, int i, int64_t before = 0) {             // bytes of scratch that are in use
    const WeightRef w = call.matrix(i);
    if (is_dense(w.dtype)) return {w.data, w.dtype};
    void* const decoded = static_cast<char*>(call.scratch) + before;
    decode_rows(call, w, 0, w.rows, {decoded, DType::f32});
    return {decoded, DType::f32};
}

}  // namespace cuda
}}  // namespace qlora
