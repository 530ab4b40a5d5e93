// tiktoken.h - lists of tiktoken: a line for each token, its bytes in base64 and its rank, which is its id.
#pragma once
#include "src/text/tokenizer.h"

namespace qlora { inline namespace QLORA_ABI {

bool is_tiktoken(std::string_view bytes);

// The list does not say which expression cuts text into words, nor what the control tokens are. They are known by the
// name of the file ("qwen.tiktoken"), or for tokenizer.model by the model_type of config.json. "" = cannot be known.
std::string_view tiktoken_form(std::string_view file_name, std::string_view model_type);

// The name of the file: "tokenizer.model" where config.json says what it is.
std::string_view tiktoken_file(std::string_view form);
// Kind byte_bpe. config: tokenizer_config.json; without control tokens in it, those that the form is known to have.
Vocabulary read_tiktoken(std::string_view bytes, std::string_view form, const Json& config, std::string_view where);

}}  // namespace qlora
