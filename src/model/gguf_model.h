// gguf_model.h - what the GGUF loader and saver share: the vocabulary, and how 4-bit tensors lie in a GGUF file.
//
// GGUF has no nf4. Our files keep the packed codes as an I8 tensor {out, in / 2} under the usual name W and the scales
// in companions:
//   W.absmax f32 {blocks}, or with double quantization W.absmax_code I8 {blocks}, W.absmax2 f32 {blocks / block2},
//   W.offset f32 {1}; W.codebook f32 {16} and W.absmax_map f32 {256} only where they are not the usual tables.
// The keys qlora.type, qlora.block and qlora.block2 say how to read them; W.blocks f32 {2} has the last two of a tensor
// for which they are others, as parts of a fused layer may be. Other programs see a file of I8 tensors and
// refuse it.
#pragma once
#include "src/format/gguf.h"
#include "src/model/load.h"

namespace qlora { inline namespace QLORA_ABI {

constexpr int ggml_i8 = 24;

// A tensor in nvfp4 has GGUF's blocks and, where it is not 1, a scale of the whole tensor in a tensor of its own: of
// X.weight it is X.scale, one f32.
inline std::string gguf_scale_name(const std::string& weight) {
    return weight.substr(0, weight.rfind('.')) + ".scale";
}

Vocabulary gguf_vocabulary(const GgufPairs&);
std::shared_ptr<const TokenizerImpl> gguf_tokenizer(const GgufPairs&); // null if the file has no vocabulary
Weight read_four_bit(const Gguf&, const std::string& name);
// The tensors only; `said` has the blocks that the keys name.
void write_four_bit(GgufWriter&, const std::string& name, WeightPtr, const FourBit& said = {});

}}  // namespace qlora
