// bpe.h - what tokenizer.json describes: text is cut into words, and these into tokens by BPE with a list of merges,
// byte-level (GPT-2, Llama 3, Qwen, ...) or over characters (Llama 2, Mistral, Gemma), or by Unigram.
#pragma once
#include "src/text/token_core.h"

namespace qlora { inline namespace QLORA_ABI {

struct BpeOptions {
    std::vector<std::function<void(NormalText&)>> normalizers;
    // What pre-tokenizers change in a stretch of normalized text before it is cut into words; first: it begins the
    // text.
    std::vector<std::function<void(std::string& text, bool first)>> changes;
    WordScanners words;                                // empty = the whole stretch is one word
    bool byte_level = true;                            // symbols are bytes; else characters
    bool strict = false;    // tokenizer.json: merges must be of tokens; symbols that are no token vanish before merging
    // of characters that are no token: their bytes as "<0xE2>", else the unknown token
    bool byte_fallback = false, fuse_unknown = false;
    std::vector<double> scores;                        // of Unigram, by id; empty: BPE
};

std::shared_ptr<const TokenizerImpl> make_bpe(Vocabulary vocabulary, BpeOptions options, DecodeRules decode,
                                              std::vector<AddedToken> added, std::string_view where);
// added: instead of those that the types of the vocabulary give
std::shared_ptr<const TokenizerImpl> make_byte_bpe(Vocabulary vocabulary, std::vector<AddedToken> added,
                                                   std::string_view where);
// added: of a SentencePiece model, beside its own control tokens
std::shared_ptr<const TokenizerImpl> make_spm(Vocabulary vocabulary, std::vector<AddedToken> added,
                                              std::string_view where);

}}  // namespace qlora
