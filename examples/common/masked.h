// masked.h - a rendered dialogue with the part that is trained on marked: what people look at to see whether their
// template is right.
#pragma once
#include "qlora.h"

namespace program {

// The text of the row, control tokens included. Where `fd` has colours: trained parts green, the others dim, control
// tokens yellow where trained and cyan where not; what only spells one has the colour of text. Else trained parts stand
// between [[ and ]].
std::string show_masked(const qlora::Rendered& row, const qlora::Tokenizer& tokenizer, int fd = 1);

// "6 control tokens; 1 more only spelled: they stay text": what [[ ]] cannot show.
std::string control_note(const qlora::Rendered& row, const qlora::Tokenizer& tokenizer);

}  // namespace program
