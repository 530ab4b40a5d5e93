// jinja_lexer.h - template text as lexemes.
#pragma once
#include "src/base/error.h"

namespace qlora::inline v0_1 {

struct JinjaLexeme {
    enum class Type : uint8_t { text, block_begin, block_end, print_begin, print_end, name, integer, number, string, op, end } type;
    std::string value;
    int line;
};

// Applies trim_blocks, lstrip_blocks, the '-' and '+' marks, comments and {% raw %}; the last lexeme is `end`.
std::vector<JinjaLexeme> lex_jinja(std::string_view source, std::string_view where);

}  // namespace qlora
