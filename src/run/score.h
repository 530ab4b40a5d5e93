// score.h - what a model thinks of given continuations, and the vectors that it makes of texts.
#pragma once
#include "src/run/decoders.h"

namespace qlora { inline namespace QLORA_ABI {

// The sum of the natural logarithms of the probabilities of the counted tokens (empty: of all).
struct Continuation { Tokens tokens; std::vector<uint8_t> counted; };
std::vector<double> score_continuations(std::shared_ptr<const ModelImpl>, const LoraImpl*,
                                        std::span<const Token> prompt, std::span<const Continuation>);
// Each reply through the chat template behind the dialogue; its trained tokens count.
std::vector<double> score_replies(std::shared_ptr<const ModelImpl>, const LoraImpl*, std::span<const Message> chat,
                                  std::span<const std::string> replies);
// {texts, hidden}
std::vector<float> embed_texts(std::shared_ptr<const ModelImpl>, const LoraImpl*, std::span<const std::string> texts,
                               Pooling, bool normalize);

}}  // namespace qlora
