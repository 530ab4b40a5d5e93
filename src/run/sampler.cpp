// sampler.cpp - one token after another, reproducibly.
#include "src/run/sampler.h"

#include <algorithm>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace sampler_room {

constexpr uint64_t stream = 0x73616d706c65;            // "sample": apart from the other users of the same seed

void require(bool ok, const char* option, double value, const char* expected) {
    if (!ok) fail(Errc::argument, "sampling: ", option, " is ", value, ", expected ", expected);
}

// Equal scores: the lower id first, so that the order never depends on the sort.
bool better(const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; }

}  // namespace sampler_room

Sampler::Sampler(const Sampling& o) : options_(o), rng_{o.seed, sampler_room::stream, 0} {
    using sampler_room::require;
    require(o.temperature >= 0 && std::isfinite(o.temperature), "temperature", o.temperature, "0 (greedy) or more");
    require(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "more than 0, at most 1");
    require(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "0 to 1");
    require(o.repeat_penalty > 0 && std::isfinite(o.repeat_penalty), "repeat_penalty", o.repeat_penalty,
            "more than 0 (1 = none)");
    require(o.top_k >= 0, "top_k", double(o.top_k), "0 (all) or more");
    require(o.repeat_last >= 0, "repeat_last", double(o.repeat_last), "0 or more");
    require(o.max_tokens >= 0, "max_tokens", double(o.max_tokens), "0 or more");
    require(o.max_seconds >= 0 && std::isfinite(o.max_seconds), "max_seconds", o.max_seconds, "0 (no limit) or more");
}

void Sampler::accept(Token t) {
    if (options_.repeat_last == 0 || options_.repeat_penalty == 1) return;
    if (recent_.size() < size_t(options_.repeat_last)) recent_.push_back(t);
    else recent_[next_++ % recent_.size()] = t;
}

// As in CTRL (arXiv:1909.05858): positive scores are divided, negative ones multiplied; a token counts once however
// often it came.
float Sampler::penalised(float score) const {
    return score > 0 ? score / options_.repeat_penalty : score * options_.repeat_penalty;
}

std::vector<Token> Sampler::seen() const {
    std::vector<Token> seen(recent_);
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    return seen;
}

// A penalty above 1 only lowers scores: among the k + m best, m of which may have been seen, are k that were not, and
// those stay before all others.
int64_t Sampler::wanted() const {
    if (options_.mask || options_.repeat_penalty < 1) return 0;
    const int64_t keep = options_.temperature == 0 ? 1 : options_.top_k;
    if (keep == 0 || options_.repeat_penalty == 1) return keep;
    return keep + std::min(options_.repeat_last, std::numeric_limits<int64_t>::max() - keep);
}

Token Sampler::pick(std::span<const float> logits, std::span<const Token> reply) {
    if (logits.empty()) fail(Errc::argument, "sampling: no scores");
    for (size_t i = 0; i < logits.size(); ++i)
        if (std::isnan(logits[i]))
            fail(Errc::numeric, "sampling: the score of token ", i,
                 " is NaN; the model's weights or the adapter are damaged");
    scores_.assign(logits.begin(), logits.end());
    if (options_.repeat_penalty != 1)
        for (const Token t : seen())
            if (t >= 0 && size_t(t) < scores_.size()) scores_[size_t(t)] = penalised(scores_[size_t(t)]);
    if (options_.mask) {
        options_.mask(reply, scores_);
        const bool numbers = std::none_of(scores_.begin(), scores_.end(), [](float v) { return std::isnan(v); });
        if (!numbers || !(*std::max_element(scores_.begin(), scores_.end()) > -HUGE_VALF))
            fail(Errc::argument, "sampling: the mask rules out every token, or makes scores of NaN, after ",
                 reply.size(), " tokens of the reply; leave one, such as the end of the reply");
    }
    if (options_.temperature == 0) return Token(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
    candidates_.clear();
    for (size_t i = 0; i < scores_.size(); ++i) candidates_.push_back({scores_[i], Token(i)});
    return draw();
}

Token Sampler::pick_of(std::span<const Candidate> best) {
    candidates_.assign(best.begin(), best.end());
    if (options_.repeat_penalty != 1) {
        const std::vector<Token> known = seen();
        for (Candidate& c : candidates_)
            if (std::binary_search(known.begin(), known.end(), c.id)) c.score = penalised(c.score);
    }
    if (options_.temperature == 0)
        return std::min_element(candidates_.begin(), candidates_.end(), sampler_room::better)->id;
    return draw();
}

Token Sampler::draw() {
    size_t keep = candidates_.size();
    if (options_.top_k > 0) keep = std::min(keep, size_t(options_.top_k));
    std::partial_sort(candidates_.begin(), candidates_.begin() + int64_t(keep), candidates_.end(),
                      sampler_room::better);
    candidates_.resize(keep);

    const double best = candidates_[0].score;
    if (!std::isfinite(best))
        fail(Errc::numeric, "sampling: the best score is ", best, "; the model's weights or the adapter are damaged");
    double total = 0;
    weights_.clear();
    for (const Candidate& c : candidates_) total += weights_.emplace_back(std::exp(double(c.score) - best));
    if (options_.top_p < 1) {                          // the fewest whose probabilities reach top_p
        double sum = 0;
        for (keep = 0; keep < weights_.size() && sum < double(options_.top_p) * total; ++keep) sum += weights_[keep];
        keep = std::max<size_t>(keep, 1);
    }
    // the best has weight 1, so min_p compares with it directly
    while (keep > 1 && weights_[keep - 1] < double(options_.min_p)) --keep;
    total = 0;
    for (size_t i = 0; i < keep; ++i)
        total += weights_[i] = std::exp((double(candidates_[i].score) - best) / double(options_.temperature));
    // 53 bits: a float's 24 would never reach the rare tokens of a large vocabulary.
    const uint32_t high = rng_.next() >> 5, low = rng_.next() >> 6;
    const double u = (double(high) * 0x1p26 + double(low)) * 0x1p-53;
    double left = u * total;
    for (size_t i = 0; i < keep; ++i)
        if ((left -= weights_[i]) < 0) return candidates_[i].id;
    return candidates_[keep - 1].id;
}

}}  // namespace qlora
