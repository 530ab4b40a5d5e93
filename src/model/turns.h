// turns.h - where each message of a printed dialogue stands, and which of the bytes the assistant speaks.
#pragma once
#include "src/model/dialogue.h"

namespace qlora { inline namespace QLORA_ABI {

// The template's print of the first `count` messages; nothing where it refuses them.
using PrintFirst = std::function<std::optional<RenderedTemplate>(int64_t count, bool reply_next)>;

// One Turn a message, without tokens. end_marks: texts that end a reply.
std::vector<Turn> find_turns(const RenderedTemplate& full, const Json& messages, const PrintFirst&,
                             std::span<const std::string> end_marks);

}}  // namespace qlora
