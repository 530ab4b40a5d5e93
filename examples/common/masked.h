// masked.h - a rendered dialogue with the part that is trained on marked: what people look at to see whether their template is right.
#pragma once
#include "qlora.h"

namespace program {

// The text of the row, control tokens included; trained parts in colour where `fd` has colours, else between [[ and ]].
std::string show_masked(const qlora::Rendered& row, const qlora::Tokenizer& tokenizer, int fd = 1);

}  // namespace program
