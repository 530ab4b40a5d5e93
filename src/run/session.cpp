// session.cpp - prompt in chunks, then one token at a time.
#include "src/run/session.h"

#include <algorithm>
#include <chrono>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace session_room {

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

SessionStats fresh(const KvCache& cache) {
    SessionStats stats;
    stats.context = cache.capacity;
    stats.cache = cache.type;
    stats.cache_bytes = cache.bytes();
    return stats;
}

Reply ended_within_its_prompt(Finish finish, const KvCache& cache, size_t read) {
    Reply reply;
    reply.finish = finish;
    reply.stats = fresh(cache);
    reply.stats.context_used = int64_t(read);
    return reply;
}

// It has no word of an answer: the question was not asked.
bool has_not_begun(const Reply& reply) {
    return reply.tokens.empty() && (reply.finish == Finish::cancelled || reply.finish == Finish::deadline);
}

}  // namespace session_room

int64_t session_context(const ModelImpl& model, int64_t wanted, const char* what) {
    const int64_t own = model.config.context;
    if (wanted < 0) fail(Errc::argument, what, ": context ", wanted, ", expected 0 (the model's own) or more");
    if (wanted > 0 && own > 0 && wanted > own)
        fail(Errc::argument, what, ": context ", wanted, ", but the model was trained for ", own, " tokens; use ", own,
             " or less");
    constexpr int64_t most = std::numeric_limits<int32_t>::max();      // positions are 32-bit
    if (wanted > most) fail(Errc::argument, what, ": context ", wanted, ", expected at most ", most);
    if (wanted > 0) return wanted;
    return own > 0 ? std::min<int64_t>(own, 4096) : 4096;
}

SessionImpl::SessionImpl(std::shared_ptr<const ModelImpl> m, std::shared_ptr<const LoraImpl> l,
                         const SessionOptions& options)
    : model(std::move(m)), lora(std::move(l)) {
    cache = make_cache(*model, session_context(*model, options.context, "Session"),
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
        spec.candidates = candidates_of(*model);
        spec.cache = &cache;
        auto made = std::make_unique<Decoder>(model, lora.get(), spec);
        made->graph().arena = arena_;
        made->graph().prepare();
        if (!arena_ || made->graph().arena->bytes > arena_->bytes) arena_ = made->graph().arena;
        slot = std::move(made);
    }
    return *slot;
}

Scores SessionImpl::feed_chunk(Decoder& d, std::span<const Token> tokens, int64_t wanted) {
    DecoderBatch b;
    append_cached(b, tokens, int64_t(cached.size()), 0, cached_length);
    pad(b, d.spec().rows);
    b.logit_rows = {int32_t(tokens.size()) - 1};
    d.run(b);
    Scores scores = RowScores(d).at(0, wanted);        // what a device found wrong is thrown here
    cached.insert(cached.end(), tokens.begin(), tokens.end());
    cache.used = int64_t(cached.size());
    return scores;
}

Scores SessionImpl::append(std::span<const Token> tokens, int64_t wanted) {
    Scores scores;
    for (size_t at = 0; at < tokens.size();) {
        const int64_t rows = chunk_of(int64_t(tokens.size() - at));
        const size_t count = std::min(tokens.size() - at, size_t(rows));
        scores = feed_chunk(decoder(rows), tokens.subspan(at, count), wanted);
        at += count;
    }
    return scores;
}

// A trainer may step between any two runs, and a text may outgrow the frequencies that its keys were turned by: what is
// out of date is dropped, and its tokens fed again.
Scores SessionImpl::feed(std::span<const Token> tokens, int64_t wanted) {
    const auto held = lora ? lora->lock.read() : std::shared_lock<std::shared_mutex>();
    const int64_t length = std::max(cached_length, int64_t(cached.size() + tokens.size()));
    const bool outgrown = turns_long(model->config, length) != turns_long(model->config, cached_length);
    cached_length = length;
    if (!outgrown && (!lora || cached_version == lora->version)) return append(tokens, wanted);
    Tokens all = std::move(cached);
    all.insert(all.end(), tokens.begin(), tokens.end());
    cached.clear();
    if (lora) cached_version = lora->version;
    return append(all, wanted);
}

// Piece by piece: the callback may want no more, and may use the adapter meanwhile. Nothing: all of it was read.
std::optional<Finish> SessionImpl::read_prompt(const Tokens& prompt, const OnText& on_text, Generation& made,
                                               Scores& scores) {
    // The last prompt token is always fed: its scores are needed.
    const size_t common = size_t(std::mismatch(cached.begin(), cached.end(), prompt.begin(), prompt.end() - 1).first -
                                 cached.begin());
    const bool long_text = turns_long(model->config, int64_t(prompt.size()));
    const bool kept = long_text == turns_long(model->config, cached_length);
    cached.resize(kept ? common : 0);
    cached_length = int64_t(prompt.size());
    for (size_t at = cached.size(); at < prompt.size();) {
        const size_t count = std::min(prompt.size() - at, size_t(most_chunk));
        scores = feed(std::span(prompt).subspan(at, count), made.wanted());
        at += count;
        if (at == prompt.size()) break;
        if (on_text && !on_text({})) return Finish::cancelled;
        if (made.out_of_time()) return Finish::deadline;
    }
    return {};
}

Reply SessionImpl::generate(const Tokens& prompt, bool opening, const Sampling& sampling, const OnText& on_text) {
    // the caller's own function: it may count its calls
    const auto hand_out = [&](std::string_view text) { return on_text(text); };
    Generation made(tokenizer(), sampling, on_text ? OnText(hand_out) : OnText(), opening);
    const int64_t length = int64_t(prompt.size());
    if (prompt.empty())
        fail(Errc::argument,
             "Session: the prompt is empty and the model has no start-of-text token; give it some text");
    if (length >= cache.capacity)
        fail(Errc::argument, "Session: the prompt has ", length, " tokens and the context ", cache.capacity,
             ", which leaves none for the reply; shorten it, drop earlier turns "
             "(set_history, reset) or make a Session with a larger context");
    const auto start = std::chrono::steady_clock::now();
    made.read(prompt);
    Scores scores;
    if (const auto ended = read_prompt(prompt, on_text, made, scores))
        return session_room::ended_within_its_prompt(*ended, cache, cached.size());
    stats = session_room::fresh(cache);
    stats.prompt_tokens = length;
    stats.context_used = int64_t(cached.size());
    stats.prompt_seconds = session_room::seconds_since(start);
    const auto reply_start = std::chrono::steady_clock::now();
    while (const auto next = made.next(scores, int64_t(cached.size()) < cache.capacity))
        scores = feed(std::span(&*next, 1), made.wanted());
    Reply reply = made.reply();
    stats.reply_tokens = int64_t(reply.tokens.size());
    stats.context_used = int64_t(cached.size());
    stats.reply_seconds = session_room::seconds_since(reply_start);
    reply.stats = stats;
    return reply;
}

Reply SessionImpl::chat(std::span<const Message> more, const RenderOptions& options, const Sampling& sampling,
                        const OnText& on_text) {
    if (!renderer_) renderer_ = std::make_unique<DialogueRenderer>(tokenizer());
    std::vector<Message> dialogue = history;
    dialogue.insert(dialogue.end(), more.begin(), more.end());
    const Dialogue printed{to_json(dialogue), variables_of(options)};
    const Rendered prompt =
        options.chat_template.empty()
            ? renderer_->reply(printed, options.prefill)
            : DialogueRenderer(tokenizer(), options.chat_template).reply(printed, options.prefill);
    // behind a prefill a space is part of the text
    Reply reply = generate(prompt.tokens, options.prefill.empty(), sampling, on_text);
    if (session_room::has_not_begun(reply)) return reply;
    reply.text = options.prefill + reply.text;
    dialogue.push_back({"assistant", reply.text});
    history = std::move(dialogue);                     // only now: a failed turn leaves the dialogue as it was
    return reply;
}

Reply SessionImpl::complete(std::span<const Token> prompt, const Sampling& sampling, const OnText& on_text) {
    for (const Token t : prompt)
        if (t < 0 || t >= model->config.vocabulary)
            fail(Errc::argument, "Session: token ", t, " is outside the vocabulary of ", model->config.vocabulary);
    history.clear();
    return generate(Tokens(prompt.begin(), prompt.end()), prompt.empty(), sampling, on_text);
}

Reply SessionImpl::complete(std::string_view prompt, const Sampling& sampling, const OnText& on_text, bool control) {
    const TokenizerImpl& words = tokenizer();
    const bool opening = prompt.empty();
    const Tokens tokens = encode_text(words, prompt, words.add_bos || opening, control);
    history.clear();                                   // only now: the prompt may be a part of it
    return generate(tokens, opening, sampling, on_text);
}

void SessionImpl::adapt(std::shared_ptr<const ModelImpl> base, std::shared_ptr<const LoraImpl> with) {
    if (base != model)
        fail(Errc::argument, "Session::adapt: the session runs ", model->path, ", the adapter is on another model, ",
             base->path, "; load adapters onto the Model that the session has");
    lora = std::move(with);
    decoders_.clear();
    cached.clear();                                    // its keys and values are another adapter's
}

}}  // namespace qlora
