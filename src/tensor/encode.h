// encode.h - floats to stored numbers: the types that models are written in, and any weight in another type.
#pragma once
#include "src/base/threads.h"
#include "src/tensor/weight.h"

namespace qlora { inline namespace QLORA_ABI {

// count elements, a multiple of the block. The values must be finite and within the type's range: convert_weight()
// checks both.
void encode_f32(const float* in, void* blocks, int64_t count);
void encode_f16(const float* in, void* blocks, int64_t count);
void encode_bf16(const float* in, void* blocks, int64_t count);
void encode_q8_0(const float* in, void* blocks, int64_t count);
void encode_q4_0(const float* in, void* blocks, int64_t count);
void encode_iq4_nl(const float* in, void* blocks, int64_t count);

// Numbers that are made while a model runs, in f32, f16, bf16 or q8_0: rounded to the nearest, q8_0 under the scale
// max|x| / 127 without a search. Error{numeric} names the value that the type cannot hold, beginning with `what`.
void encode_plain(DType, std::string_view what, const float* in, void* blocks, int64_t count);

bool can_encode(DType);                                // these six, nf4 and fp4
constexpr std::string_view written_types = "f32, f16, bf16, q8_0, q4_0, iq4_nl, nf4 or fp4";    // as messages name them

// Decoded and encoded in pieces, so no second copy of the tensor exists in floats. A weight that has the type already
// is returned as it is. Rows must be whole blocks. double_quant is for nf4 and fp4. pool may be null.
Weight convert_weight(const Weight& source, DType type, bool double_quant = true, ThreadPool* pool = nullptr);

}}  // namespace qlora
