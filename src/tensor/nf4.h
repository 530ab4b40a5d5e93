// nf4.h - 4-bit quantization as QLoRA defines it (arXiv:2305.14314) and bitsandbytes writes it.
//
// Each block of 64 elements is divided by its largest magnitude (multiplied by the reciprocal, as the reference does)
// and every quotient becomes the nearest of 16 codes; a tie goes to the lower code. Double quantization stores the
// scales as 8-bit codes of a dynamic map, after subtracting their mean, with one float scale per 256 of them.
// A block of zeros stores scale 0 and the code of zero. NaN or infinity is an error that names the tensor.
//
// What is equal to the reference (GPU kernels) and what is not, each held by a test:
//   codes      equal in every block whose largest magnitude is a normal float (2^-126 or more), but for the sign of
//              zero: fp4 has two zeros, and a block of zeros has other codes there. Below, its builds differ among
//              themselves; ours is the nearest level still.
//   scales     equal to the bit without double quantization.
//   the mean   of double quantization is ours summed in double, block by block, divided and rounded once. The reference
//              sums n scales in float in an order that its build chooses: its mean lies within E = (log2(n) + 2) 2^-24
//              of ours, relative, and so do absmax2 (E and one rounding) and the quotients. A code differs where E, or
//              2^-16 with the table of its CPU build, puts a quotient on the other side of the middle of two entries:
//              it is the neighbour then, and the scale differs by that step of the map.
#pragma once
#include "src/base/threads.h"
#include "src/tensor/weight.h"

namespace qlora { inline namespace QLORA_ABI {

extern const float nf4_codebook[16], nf4_thresholds[15], fp4_codebook[16];
const float* dynamic_map_signed();    // [256], sorted; the map of double quantization and of Adam's first moment
const float* dynamic_map_unsigned();                   // [256], sorted; Adam's second moment

uint8_t nf4_code(float x);                             // x in [-1, 1]
uint8_t fp4_code(float x);
uint8_t dynamic_code(const float* map, float x);       // the nearest entry as bitsandbytes' search finds it

// Quantizes any weight: decodes it in pieces, so no second copy of the tensor exists in floats. pool may be null.
Weight quantize_4bit(const Weight& source, DType type, bool double_quant, ThreadPool* pool = nullptr);

}}  // namespace qlora
