// tokenizer_model.h - tokenizer.model: a SentencePiece model, or tiktoken's list of tokens, with what
// tokenizer_config.json adds to it.
#pragma once
#include "src/text/token_core.h"

namespace qlora { inline namespace QLORA_ABI {

struct TokenizerModel {
    Vocabulary vocabulary;
    std::vector<AddedToken> added;
};

// form: of tiktoken_form(); "" for a SentencePiece model.
TokenizerModel read_tokenizer_model(std::string_view bytes, std::string_view form, const Json& config,
                                    const std::string& where);
std::shared_ptr<const TokenizerImpl> make_tokenizer(TokenizerModel, std::string_view where);

}}  // namespace qlora
