// sentencepiece.h - tokenizer.model: a vocabulary as SentencePiece writes it, a protocol buffer.
#pragma once
#include "src/text/tokenizer.h"

namespace qlora { inline namespace QLORA_ABI {

bool is_sentencepiece(std::string_view bytes);         // begins as one does
// Kind spm (BPE) or unigram, with pieces, scores, types and the rules of its normalizer. Error{format} for a damaged
// file, Error{unsupported} for the kinds that no language model has.
Vocabulary read_sentencepiece(std::string_view bytes, std::string_view where);

}}  // namespace qlora
