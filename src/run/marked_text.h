// marked_text.h - texts that a chat template has printed before they came here: where the assistant speaks in them.
#pragma once
#include "src/model/dialogue.h"

namespace qlora { inline namespace QLORA_ABI {

struct TurnMarks {    // what the template prints to open a turn; empty = it opens none that can be told apart
    std::string user, assistant;
    bool in(std::string_view text) const;              // does the text hold one of them?
};
TurnMarks turn_marks_of(const TokenizerImpl&, const DialogueRenderer&);

struct MarkedText {
    Tokens tokens;
    std::vector<uint8_t> trained;    // the assistant's turns with their end tokens; all 0 where the text holds no mark
    int64_t turns = 0, trained_turns = 0;
};
// Encodes the whole text with its control tokens. bos: the start of text in front, unless the text brings it.
MarkedText encode_marked(const TokenizerImpl&, const TurnMarks&, std::string_view text, bool bos);

// The same with one stretch [from, text.size()) trained.
MarkedText encode_after(const TokenizerImpl&, std::string_view text, size_t from, bool bos, bool control);

}}  // namespace qlora
