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

// Candidates are put in order as far as somebody asks, four times as many each time: of a whole vocabulary the draw is
// among the first few hundred nearly always, and sorting all of it takes longer than a small model.
Token Sampler::draw() {
    using sampler_room::better;
    const size_t n = candidates_.size();
    size_t keep = options_.top_k > 0 ? std::min(n, size_t(options_.top_k)) : n, sorted = 0;
    const auto at = [&](size_t i) -> const Candidate& {
        while (i >= sorted) {
            const auto first = candidates_.begin() + int64_t(sorted);
            sorted = std::min(n, std::max<size_t>(4 * sorted, 256));
            const auto last = candidates_.begin() + int64_t(sorted);
            std::nth_element(first, last, candidates_.end(), better);
            std::sort(first, last, better);
        }
        return candidates_[i];
    };
    const double best = std::min_element(candidates_.begin(), candidates_.end(), better)->score;
    if (!std::isfinite(best))
        fail(Errc::numeric, "sampling: the best score is ", best, "; the model's weights or the adapter are damaged");
    const auto weight = [&](const Candidate& c, double temperature) {
        return std::exp((double(c.score) - best) / temperature);
    };
    const auto kept = [&](double temperature) {        // the sum of their weights: of all by id, else from the best on
        double total = 0;
        if (options_.top_k == 0 && sorted == 0)
            for (const Candidate& c : candidates_) total += weight(c, temperature);
        else for (size_t i = 0; i < keep; ++i) total += weight(at(i), temperature);
        return total;
    };
    if (options_.top_p < 1) {                          // the fewest whose probabilities reach top_p
        const double enough = double(options_.top_p) * kept(1);
        double sum = 0;
        size_t some = 0;
        for (; some < keep && sum < enough; ++some) sum += weight(at(some), 1);
        keep = std::max<size_t>(some, 1);
    }
    if (options_.min_p > 0) {                          // the best has weight 1, so min_p compares with it directly
        size_t some = 1;
        while (some < keep && weight(at(some), 1) >= double(options_.min_p)) ++some;
        keep = some;
    }
    // 53 bits: a float's 24 would never reach the rare tokens of a large vocabulary.
    const uint32_t high = rng_.next() >> 5, low = rng_.next() >> 6;
    const double u = (double(high) * 0x1p26 + double(low)) * 0x1p-53;
    double left = u * kept(double(options_.temperature));
    for (size_t i = 0; i < keep; ++i)
        if ((left -= weight(at(i), double(options_.temperature))) < 0) return at(i).id;
    return at(keep - 1).id;
}

}}  // namespace qlora
