// generation.cpp - one token after another.
#include "src/run/generation.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

Generation::Generation(const TokenizerImpl& words, const Sampling& sampling, OnText on_text, bool opening)
    : words_(words), sampling_(sampling), on_text_(std::move(on_text)), sampler_(sampling_),
      stream_(sampling_.stop, on_text_), opening_(opening) {
    if (sampling_.max_tokens == 0) end(Finish::length);
}

void Generation::read(std::span<const Token> prompt) {
    for (const Token t : prompt) sampler_.accept(t);
}

std::optional<Token> Generation::next(const Scores& scores, bool room) {
    if (ended_ || out_of_time()) return {};
    const Token token = scores.best.empty() ? sampler_.pick(scores.all, reply_.tokens) : sampler_.pick_of(scores.best);
    reply_.tokens.push_back(token);
    if (sampling_.logprobs) reply_.logprobs.push_back(logprob_of(scores.all, token));
    const int64_t count = int64_t(reply_.tokens.size());
    const bool ends = std::find(words_.end_of_reply.begin(), words_.end_of_reply.end(), token) !=
                      words_.end_of_reply.end();
    if (!ends) sampler_.accept(token);
    if (ends) end(Finish::end);
    else if (!stream_.add(opening_ && count == 1 ? words_.decode(std::span(&token, 1)) : words_.piece(token)))
        end(stream_.stopped() ? Finish::stop_text : Finish::cancelled);
    else if (count == sampling_.max_tokens) end(Finish::length);
    else if (!room) end(Finish::context_full);
    return ended_ ? std::nullopt : std::optional(token);
}

bool Generation::out_of_time() {
    if (ended_ || sampling_.max_seconds == 0) return false;
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began_;
    if (spent.count() < sampling_.max_seconds) return false;
    end(Finish::deadline);
    return true;
}

void Generation::cancel() {
    if (!ended_) end(Finish::cancelled);
}

void Generation::end(Finish finish) {
    stream_.finish();
    reply_.text = std::move(stream_.text());
    reply_.finish = finish;
    ended_ = true;
}

float logprob_of(std::span<const float> scores, Token token) {
    const float best = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const float v : scores) sum += double(std::exp(v - best));
    return float(double(scores[size_t(token)] - best) - std::log(sum));
}

std::string_view name_of(Finish finish) {
    switch (finish) {
        case Finish::end: return "end";
        case Finish::stop_text: return "stop text";
        case Finish::length: return "length";
        case Finish::context_full: return "context full";
        case Finish::deadline: return "deadline";
        case Finish::cancelled: return "cancelled";
    }
    fail(Errc::argument, "name_of: ", int(finish), " is no reason why a reply ended");
}

}}  // namespace qlora
