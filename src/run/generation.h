// generation.h - one reply while it is made: scores in, tokens out, until something ends it.
#pragma once
#include "src/run/reply_stream.h"
#include "src/run/sampler.h"
#include "src/text/tokenizer.h"

#include <chrono>

namespace qlora { inline namespace QLORA_ABI {

class Generation {
public:
    // opening: the reply begins a text, so the space that SPM vocabularies put there is not part of it. All but the
    // tokenizer is copied.
    Generation(const TokenizerImpl&, const Sampling&, OnText, bool opening);
    Generation(const Generation&) = delete;
    void read(std::span<const Token> prompt);          // for the repeat penalty
    bool ended() const { return ended_; }
    bool out_of_time();                                // asks the clock, and ends the reply where its time is over
    // The next token, to be fed: nothing where the reply has ended. room: another one fits into the context.
    std::optional<Token> next(const Scores&, bool room);
    int64_t wanted() const { return sampling_.logprobs ? 0 : sampler_.wanted(); }    // as Sampler::wanted()
    void cancel();                                     // ends it
    const Reply& reply() const { return reply_; }      // text: once it has ended
private:
    void end(Finish);
    const TokenizerImpl& words_;
    const Sampling sampling_;
    const OnText on_text_;
    Sampler sampler_;
    ReplyStream stream_;
    Reply reply_;
    const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    bool opening_, ended_ = false;
};

// The natural logarithm of the probability that scores give to a token.
float logprob_of(std::span<const float> scores, Token);

}}  // namespace qlora
