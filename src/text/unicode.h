// unicode.h - what tokenizers must know of characters: general categories, white space, and the normal forms.
#pragma once
#include "src/text/utf8.h"

namespace qlora { inline namespace QLORA_ABI {

// One bit each, so that a set of categories is a mask. Space (the property White_Space) is a bit beside the category.
enum CharClass : uint16_t {
    char_upper = 1, char_lower = 2, char_title = 4, char_modifier = 8, char_other_letter = 16,     // Lu Ll Lt Lm Lo
    // M N P S, and all others
    char_mark = 32, char_number = 64, char_punctuation = 128, char_symbol = 256, char_none = 512,
    char_space = 1024,
    char_letter = char_upper | char_lower | char_title | char_modifier | char_other_letter
};

uint16_t char_class(char32_t code);

// composed or apart; k: compatible characters become the plain ones
enum class Form : uint8_t { nfc, nfd, nfkc, nfkd };
std::string normal_form(Form, std::string_view text);  // invalid bytes stay as they are
bool form_begins(Form, char32_t code);                 // what precedes it never changes it, nor the other way round
bool form_settled(Form, char32_t code);                // that, and alone it is its own normal form

std::string lowercase(std::string_view text);          // character by character, whatever stands around it

// What Python's str does with single characters.
enum class CharCase : uint8_t { upper, lower, title };
void append_cased(std::string& out, char32_t code, CharCase);          // may append several characters
bool python_space(char32_t code);    // str.isspace: White_Space and the four separators U+001C..U+001F
bool python_upper(char32_t code);
bool python_lower(char32_t code);
bool python_cased(char32_t code);                      // upper, lower or title case
bool case_ignorable(char32_t code);    // stands inside words without deciding whether a sigma is the last letter
bool python_printable(char32_t code);                  // repr() shows it as it is

// Packed tables (unicode_tables.cpp).
extern const char unicode_class_runs[];
extern const char unicode_combining_runs[];
extern const char unicode_decompositions[];
extern const char unicode_compatible[];                // unicode_compatible_tables.cpp
extern const char unicode_other_punctuation[];
extern const char unicode_lowercase_runs[];
extern const char unicode_uppercase_runs[];            // from here on: unicode_case_tables.cpp
extern const char unicode_titlecase_runs[];
extern const char unicode_special_case[];
extern const char unicode_case_ignorable[];
extern const char unicode_other_lowercase[];
extern const char unicode_other_uppercase[];

}}  // namespace qlora
