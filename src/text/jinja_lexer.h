// jinja_lexer.h - template text as lexemes.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

struct JinjaLexeme {
    enum class Type : uint8_t {
        text,
        block_begin,
        block_end,
        print_begin,
        print_end,
        name,
        integer,
        number,
        string,
        op,
        end
    } type;
    std::string value;
    int line;
};

// What an error may quote of a template: one line of at most 300 bytes, without control characters.
std::string jinja_one_line(std::string_view text);

// Applies trim_blocks, lstrip_blocks, the '-' and '+' marks, comments and {% raw %}; the last lexeme is `end`.
std::vector<JinjaLexeme> lex_jinja(std::string_view source, std::string_view where);

}}  // namespace qlora
