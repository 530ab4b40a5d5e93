// wording.h - an error of the library in the words of a program: what a call is called there means nothing to somebody
// who typed a command.
#pragma once
#include <string>

namespace program {

std::string in_program_words(std::string text);

}  // namespace program
