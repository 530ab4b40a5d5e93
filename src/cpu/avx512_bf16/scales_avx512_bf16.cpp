// scales_avx512_bf16.cpp - scales that were quantized again, for whoever wants them apart from products.
#include "src/cpu/avx512_bf16/scales_avx512_bf16.h"
#include "src/cpu/avx512_bf16/kernels_avx512_bf16.h"

#if defined(__x86_64__)
QLORA_TARGET_BEGIN(avx512_bf16)

namespace qlora { inline namespace QLORA_ABI {

void double_scales_avx512_bf16(const FourBit& quant, int64_t first, int64_t count, float* scales) {
    scales_avx512_bf16::Planes planes;
    scales_avx512_bf16::read(quant.absmax_map, planes);
    scales_avx512_bf16::look_up(planes, quant, first, count, scales);
}

}}  // namespace qlora

QLORA_TARGET_END
#endif
