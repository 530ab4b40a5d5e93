// sampler.h - the next token from its scores: repeat penalty, then the k best, then top-p, min-p and temperature.
//
// The order is llama.cpp's: the candidates are cut by their probabilities at temperature 1, and the temperature then
// decides among those left. Draws come from a counter-based generator, so a reply depends on the seed and the scores
// only.
#pragma once
#include "src/base/rng.h"
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

struct Candidate { float score; Token id; };
// Of the next token: every score, or the best alone, in order - of equal ones the lower id first.
struct Scores {
    std::vector<float> all;
    std::vector<Candidate> best;
};

class Sampler {
public:
    explicit Sampler(const Sampling&);                 // checks every option
    void accept(Token);                                // seen: prompt and reply tokens, for the repeat penalty
    // Does not accept() it; Error{numeric} on NaN. reply: what Sampling::mask is asked about.
    Token pick(std::span<const float> logits, std::span<const Token> reply = {});
    // The same token, from the wanted() best scores alone. They are not NaN.
    Token pick_of(std::span<const Candidate> best);
    // So many of the best scores say which token is picked, whatever the others are: 0 = all of them are needed.
    int64_t wanted() const;
private:
    std::vector<Token> seen() const;                   // what the penalty is about, in order
    float penalised(float score) const;
    Token draw();                                      // of candidates_
    Sampling options_;
    Rng rng_;
    std::vector<Token> recent_;                        // a ring of repeat_last tokens
    size_t next_ = 0;
    std::vector<float> scores_;
    std::vector<Candidate> candidates_;
};

}}  // namespace qlora
