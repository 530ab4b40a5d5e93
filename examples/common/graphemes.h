// graphemes.h - what a person takes for one character, and how many columns of a terminal it has.
#pragma once
#include <string>

namespace program {

// The locale of the environment, so that the C library knows the widths of characters; where that knows none but
// ASCII's, C.UTF-8. Numbers stay as they are.
void use_locale();

// Beginning of the next and of the previous cluster of UTF-8 text: a base with its accents, variation selectors and
// skin tones, what joiners join (a family), a flag's two letters.
size_t after_cluster(const std::string& s, size_t at);
size_t before_cluster(const std::string& s, size_t at);
// Beginning of the next and of the previous word; words are runs of letters, digits and everything beyond ASCII.
size_t after_word(const std::string& s, size_t at);
size_t before_word(const std::string& s, size_t at);

int width(const std::string& s, size_t from, size_t to);               // columns, by the C library
std::string first_columns(const std::string& s, int most);             // as many whole clusters as fit

}  // namespace program
