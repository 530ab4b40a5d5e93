// blocks.h - decoders of dense numbers and of GGUF's blocks: count elements, a multiple of the block; nothing need be aligned.
#pragma once
#include <cstdint>

namespace qlora::inline v0_1 {

// The curve of iq4: 16 levels, denser around zero.
constexpr int8_t iq4_curve[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void decode_f32(const void* blocks, float* out, int64_t count);
void decode_f16(const void* blocks, float* out, int64_t count);
void decode_bf16(const void* blocks, float* out, int64_t count);
void decode_q4_0(const void* blocks, float* out, int64_t count);
void decode_q4_1(const void* blocks, float* out, int64_t count);
void decode_q5_0(const void* blocks, float* out, int64_t count);
void decode_q5_1(const void* blocks, float* out, int64_t count);
void decode_q8_0(const void* blocks, float* out, int64_t count);
void decode_q2_k(const void* blocks, float* out, int64_t count);
void decode_q3_k(const void* blocks, float* out, int64_t count);
void decode_q4_k(const void* blocks, float* out, int64_t count);
void decode_q5_k(const void* blocks, float* out, int64_t count);
void decode_q6_k(const void* blocks, float* out, int64_t count);
void decode_iq4_nl(const void* blocks, float* out, int64_t count);
void decode_iq4_xs(const void* blocks, float* out, int64_t count);
void decode_mxfp4(const void* blocks, float* out, int64_t count);

}  // namespace qlora
