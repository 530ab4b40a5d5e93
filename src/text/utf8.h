// utf8.h - UTF-8: one character at a time, valid or not, and texts made valid.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

struct Utf8Char {
    char32_t code = 0;                                 // U+FFFD where the bytes are no character
    int bytes = 0;    // 1..4; an invalid byte stands alone; 0 only at the end of the text
    bool valid = false;
};

Utf8Char utf8_at(std::string_view text, size_t at);    // no surrogates, no overlong forms, nothing above U+10FFFF
void utf8_append(std::string& out, char32_t code);
bool utf8_valid(std::string_view text);
std::string utf8_sanitize(std::string_view text);      // each invalid byte becomes U+FFFD
size_t utf8_whole(std::string_view text);    // length without a character at the end whose last bytes are still to come

}}  // namespace qlora
