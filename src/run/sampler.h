// sampler.h - the next token from its scores: repeat penalty, then the k best, then top-p, min-p and temperature.
//
// The order is llama.cpp's: the candidates are cut by their probabilities at temperature 1, and the temperature then
// decides among those left. Draws come from a counter-based generator, so a reply depends on the seed and the scores
// only.
#pragma once
#include "src/base/rng.h"
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

class Sampler {
public:
    explicit Sampler(const Sampling&);                 // checks every option
    void accept(Token);                                // seen: prompt and reply tokens, for the repeat penalty
    // Does not accept() it; Error{numeric} on NaN. reply: what Sampling::mask is asked about.
    Token pick(std::span<const float> logits, std::span<const Token> reply = {});
private:
    struct Candidate { float score; Token id; };
    void penalise(std::vector<float>& scores) const;
    Sampling options_;
    Rng rng_;
    std::vector<Token> recent_;                        // a ring of repeat_last tokens
    size_t next_ = 0;
    std::vector<float> scores_;
    std::vector<Candidate> candidates_;
    std::vector<double> weights_;
};

}}  // namespace qlora
