// session.cpp - prompt in chunks, then one token at a time.
#include "src/run/session.h"

#include <algorithm>
#include <chrono>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace session_room {

// Rows a run: one for decoding, and chunks for prompts. Larger chunks read the weights less often; beyond 128 rows a
// product is bound by arithmetic anyway and padding the last chunk costs more.
constexpr int64_t chunk_rows[] = {1, 16, 128};

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Bytes of an unfinished UTF-8 character at the end. Bytes that no character can begin with are passed on as they are.
size_t unfinished(std::string_view s) {
    for (size_t back = 1; back <= std::min<size_t>(3, s.size()); ++back) {
        const unsigned char c = static_cast<unsigned char>(s[s.size() - back]);
        if ((c & 0xC0) == 0x80) continue;
        const size_t length = c >= 0xF0 && c < 0xF8 ? 4 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xC2 && c < 0xE0 ? 2 : 1;
        return length > back ? back : 0;
    }
    return 0;
}

// Length of the longest end of `text` that begins `stop`.
size_t overlap(std::string_view text, std::string_view stop) {
    for (size_t n = std::min(text.size(), stop.size()); n > 0; --n)
        if (text.ends_with(stop.substr(0, n))) return n;
    return 0;
}

int64_t context_of(const ModelImpl& model, int64_t wanted) {
    const int64_t own = model.config.context;
    if (wanted < 0) fail(Errc::argument, "Session: context ", wanted, ", expected 0 (the model's own) or more");
    if (wanted > 0 && own > 0 && wanted > own)
        fail(Errc::argument, "Session: context ", wanted, ", but the model was trained for ", own, " tokens; use ", own,
             " or less");
    constexpr int64_t most = std::numeric_limits<int32_t>::max();      // positions are 32-bit
    if (wanted > most) fail(Errc::argument, "Session: context ", wanted, ", expected at most ", most);
    if (wanted > 0) return wanted;
    return own > 0 ? std::min<int64_t>(own, 4096) : 4096;
}

SessionStats fresh(const KvCache& cache) {
    SessionStats stats;
    stats.context = cache.capacity;
    stats.cache = cache.type;
    stats.cache_bytes = cache.bytes();
    return stats;
}

}  // namespace session_room

bool ReplyStream::emit(size_t end) {
    if (end <= sent_) return true;
    const std::string_view part = std::string_view(text_).substr(sent_, end - sent_);
    sent_ = end;
    return !on_text_ || on_text_(part);
}

bool ReplyStream::add(std::string_view piece) {
    // A stop text may begin in what was held back, never in what was handed out.
    text_ += piece;
    size_t stop_at = text_.npos;
    for (const std::string& stop : stop_)
        if (!stop.empty()) stop_at = std::min(stop_at, text_.find(stop, sent_));
    if (stop_at != text_.npos) {
        text_.resize(stop_at);
        done_ = true;
        emit(stop_at);
        return false;
    }
    const std::string_view fresh = std::string_view(text_).substr(sent_);
    size_t held = session_room::unfinished(fresh);
    for (const std::string& stop : stop_) held = std::max(held, session_room::overlap(fresh, stop));
    size_t end = text_.size() - held;
    // a stop text may begin inside a character
    end -= session_room::unfinished(std::string_view(text_).substr(sent_, end - sent_));
    if (emit(end)) return true;
    text_.resize(sent_);
    done_ = true;
    return false;
}

void ReplyStream::finish() {
    if (!done_) {
        // cut off in the middle of a character by max_tokens
        text_.resize(text_.size() - session_room::unfinished(text_));
        emit(text_.size());
    }
    done_ = true;
}

SessionImpl::SessionImpl(std::shared_ptr<const ModelImpl> m, std::shared_ptr<const LoraImpl> l,
                         const SessionOptions& options)
    : model(std::move(m)), lora(std::move(l)) {
    cache = make_cache(*model, session_room::context_of(*model, options.context),
                       options.cache.value_or(cache_type(*model)));
    stats = session_room::fresh(cache);
}

const TokenizerImpl& SessionImpl::tokenizer() const {
    if (!model->tokenizer)
        fail(Errc::argument, "Session: the model has no vocabulary; text needs one (Model::logits works on ids)");
    return *model->tokenizer;
}

Decoder& SessionImpl::decoder(int64_t rows) {
    std::unique_ptr<Decoder>& slot = decoders_[rows];
    if (!slot) {
        DecoderSpec spec;
        spec.rows = rows;
        spec.logit_rows = 1;
        spec.cache = &cache;
        auto made = std::make_unique<Decoder>(model, lora.get(), spec);
        made->graph().arena = arena_;
        made->graph().prepare();
        if (!arena_ || made->graph().arena->bytes > arena_->bytes) arena_ = made->graph().arena;
        slot = std::move(made);
    }
    return *slot;
}

std::vector<float> SessionImpl::feed_chunk(Decoder& d, std::span<const Token> tokens) {
    const size_t rows = size_t(d.spec().rows), count = tokens.size();
    const int32_t start = int32_t(cached.size());
    DecoderBatch b;
    b.tokens.assign(rows, 0);
    b.positions.assign(rows, 0);
    b.first.assign(rows, 0);
    b.last.assign(rows, 0);
    b.cache_rows.assign(rows, -1);
    for (size_t i = 0; i < count; ++i) {
        b.tokens[i] = tokens[i];
        b.positions[i] = b.cache_rows[i] = start + int32_t(i);
        b.last[i] = start + int32_t(i) + 1;
    }
    b.logit_rows = {int32_t(count) - 1};
    d.run(b);
    cached.insert(cached.end(), tokens.begin(), tokens.end());
    cache.used = int64_t(cached.size());
    return d.logits();
}

std::vector<float> SessionImpl::append(std::span<const Token> tokens) {
    std::vector<float> logits;
    for (size_t at = 0; at < tokens.size();) {
        const int64_t left = int64_t(tokens.size() - at);
        int64_t rows = 0;
        for (const int64_t r : session_room::chunk_rows) {
            rows = r;
            if (r >= left) break;
        }
        const size_t count = size_t(std::min(rows, left));
        logits = feed_chunk(decoder(rows), tokens.subspan(at, count));
        at += count;
    }
    return logits;
}

// A trainer may step between any two runs: keys and values that older factors left are dropped, and their tokens fed
// again.
std::vector<float> SessionImpl::feed(std::span<const Token> tokens) {
    if (!lora) return append(tokens);
    const auto held = lora->lock.read();
    if (cached_version == lora->version) return append(tokens);
    Tokens all = std::move(cached);
    all.insert(all.end(), tokens.begin(), tokens.end());
    cached.clear();
    cached_version = lora->version;
    return append(all);
}

std::optional<std::string> SessionImpl::generate(const Tokens& prompt, bool opening, const Sampling& sampling,
                                                 const OnText& on_text) {
    Sampler sampler(sampling);
    const TokenizerImpl& words = tokenizer();
    const int64_t length = int64_t(prompt.size());
    if (prompt.empty())
        fail(Errc::argument,
             "Session: the prompt is empty and the model has no start-of-text token; give it some text");
    if (length >= cache.capacity)
        fail(Errc::argument, "Session: the prompt has ", length, " tokens and the context ", cache.capacity,
             ", which leaves none for the reply; shorten it, drop earlier turns "
             "(set_history, reset) or make a Session with a larger context");
    const auto start = std::chrono::steady_clock::now();
    // The last prompt token is always fed: its scores are needed.
    const size_t common = size_t(std::mismatch(cached.begin(), cached.end(), prompt.begin(), prompt.end() - 1).first -
                                 cached.begin());
    cached.resize(common);
    for (const Token t : prompt) sampler.accept(t);
    std::vector<float> logits;
    // piece by piece: the callback may want no more, and may use the adapter meanwhile
    for (size_t at = common; at < prompt.size();) {
        const size_t count = std::min(prompt.size() - at, size_t(session_room::chunk_rows[2]));
        logits = feed(std::span(prompt).subspan(at, count));
        at += count;
        if (at < prompt.size() && on_text && !on_text({})) return {};
    }
    stats = session_room::fresh(cache);
    stats.prompt_tokens = length;
    stats.context_used = int64_t(cached.size());
    stats.prompt_seconds = session_room::seconds_since(start);

    const auto reply_start = std::chrono::steady_clock::now();
    ReplyStream stream(sampling.stop, on_text);
    while (stats.reply_tokens < sampling.max_tokens) {
        const Token next = sampler.pick(logits);
        ++stats.reply_tokens;
        if (std::find(words.end_of_reply.begin(), words.end_of_reply.end(), next) != words.end_of_reply.end()) break;
        sampler.accept(next);
        const bool first = opening && stats.reply_tokens == 1;
        if (!stream.add(first ? words.decode(std::span(&next, 1)) : words.piece(next))) break;
        // the context is full: as if max_tokens
        if (stats.reply_tokens == sampling.max_tokens || int64_t(cached.size()) == cache.capacity) break;
        logits = feed(std::span(&next, 1));
    }
    stream.finish();
    stats.context_used = int64_t(cached.size());
    stats.reply_seconds = session_room::seconds_since(reply_start);
    return std::move(stream.text());
}

std::string SessionImpl::chat(std::string_view user, const Sampling& sampling, const OnText& on_text) {
    if (!renderer_) renderer_ = std::make_unique<DialogueRenderer>(tokenizer());
    std::vector<Message> dialogue = history;
    dialogue.push_back({"user", std::string(user)});
    const Rendered prompt = renderer_->reply({to_json(dialogue), {}});
    std::optional<std::string> reply = generate(prompt.tokens, true, sampling, on_text);
    if (!reply) return {};                             // no word of an answer: the question was not asked
    dialogue.push_back({"assistant", *reply});
    history = std::move(dialogue);                     // only now: a failed turn leaves the dialogue as it was
    return std::move(*reply);
}

std::string SessionImpl::complete(std::span<const Token> prompt, const Sampling& sampling, const OnText& on_text) {
    for (const Token t : prompt)
        if (t < 0 || t >= model->config.vocabulary)
            fail(Errc::argument, "Session: token ", t, " is outside the vocabulary of ", model->config.vocabulary);
    history.clear();
    return generate(Tokens(prompt.begin(), prompt.end()), prompt.empty(), sampling, on_text).value_or("");
}

std::string SessionImpl::complete(std::string_view prompt, const Sampling& sampling, const OnText& on_text,
                                  bool control) {
    history.clear();
    const TokenizerImpl& words = tokenizer();
    return generate(encode_text(words, prompt, words.add_bos || prompt.empty(), control), prompt.empty(), sampling,
                    on_text)
        .value_or("");
}

}}  // namespace qlora
