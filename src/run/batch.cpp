// batch.cpp - see batch.h.
#include "src/run/batch.h"

#include "src/run/session.h"

#include <algorithm>
#include <chrono>

namespace qlora { inline namespace QLORA_ABI {
namespace batch_room {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace batch_room

BatchImpl::BatchImpl(std::shared_ptr<const ModelImpl> m, const BatchOptions& options) : model(std::move(m)) {
    constexpr int64_t most_slots = 4096;               // far beyond what a machine's memory holds
    if (options.slots < 1 || options.slots > most_slots)
        fail(Errc::argument, "Batch: ", options.slots, " slots, expected 1 to ", most_slots);
    context = session_context(*model, options.context, "Batch");
    cache = make_cache(*model, checked_mul(options.slots, context, "Batch"),
                       options.cache.value_or(cache_type(*model)));
    slots_.resize(size_t(options.slots));
    together_ = model->backend->rows_alike(WeightRef{});       // the factors of adapters
    const auto meets = [&](const WeightPtr& w) {
        if (w) together_ = std::min(together_, model->backend->rows_alike(w->ref()));
    };
    meets(model->at(qlora::Slot::head));
    for (const auto& layer : model->layers)
        for (size_t i = 0; i < size_t(module_count); ++i) meets(layer[i]);
}

Decoder& BatchImpl::decoder(const std::shared_ptr<const LoraImpl>& lora, int64_t rows, int64_t logit_rows) {
    const auto known = decoders_.find({lora.get(), rows});
    if (known != decoders_.end()) return *known->second.decoder;
    DecoderSpec spec;
    spec.rows = rows;
    spec.logit_rows = logit_rows;
    spec.candidates = candidates_of(*model);
    spec.cache = &cache;
    auto made = std::make_unique<Decoder>(model, lora.get(), spec);
    made->graph().arena = arena_;
    made->graph().prepare();
    if (!arena_ || made->graph().arena->bytes > arena_->bytes) arena_ = made->graph().arena;
    return *(decoders_[{lora.get(), rows}] = {lora, std::move(made)}).decoder;
}

// Appends tokens to a slot, in chunks; its scores are those after the last.
void BatchImpl::read(int64_t slot, std::span<const Token> tokens, Generation& made, bool timed) {
    Slot& s = slots_[size_t(slot)];
    for (size_t at = 0; at < tokens.size() && !(timed && made.out_of_time());) {
        const int64_t rows = chunk_of(int64_t(tokens.size() - at));
        const size_t count = std::min(tokens.size() - at, size_t(rows));
        Decoder& d = decoder(s.lora, rows, 1);
        DecoderBatch b;
        append_cached(b, tokens.subspan(at, count), int64_t(s.tokens.size()), slot * context, s.length);
        pad(b, rows);
        b.logit_rows = {int32_t(count) - 1};
        d.run(b);
        s.scores = RowScores(d).at(0, made.wanted());
        s.tokens.insert(s.tokens.end(), tokens.begin() + int64_t(at), tokens.begin() + int64_t(at + count));
        at += count;
    }
}

// A trainer may step between two calls, and the next token may be one too many for the frequencies that the keys were
// turned by: what is out of date is computed anew.
void BatchImpl::renew(int64_t slot) {
    Slot& s = slots_[size_t(slot)];
    const int64_t length = int64_t(s.tokens.size()) + 1, before = s.length;
    const bool outgrown = turns_long(model->config, length) != turns_long(model->config, before);
    if (!outgrown && (!s.lora || s.version == s.lora->version)) return;
    const Tokens all = s.tokens;
    s.tokens.clear();
    s.length = length;
    try {
        read(slot, all, *s.made, false);
    } catch (...) {                                    // the next step tries again
        s.tokens = all;
        s.length = before;
        throw;
    }
    if (s.lora) s.version = s.lora->version;
}

int64_t BatchImpl::add(std::span<const Token> prompt, const Sampling& sampling, std::shared_ptr<const LoraImpl> lora) {
    if (!model->tokenizer) fail(Errc::argument, "Batch::add: the model has no vocabulary; replies are text");
    if (lora && lora->base != model) fail(Errc::argument, "Batch::add: the adapter is on another model than the batch");
    if (prompt.empty())
        fail(Errc::argument, "Batch::add: the prompt is empty; give it the start-of-text token at least");
    for (const Token t : prompt)
        if (t < 0 || t >= model->config.vocabulary)
            fail(Errc::argument, "Batch::add: token ", t, " is outside the vocabulary of ", model->config.vocabulary);
    if (int64_t(prompt.size()) >= context)
        fail(Errc::argument, "Batch::add: the prompt has ", prompt.size(), " tokens and a slot ", context,
             ", which leaves none for the reply; shorten it, or make a Batch with a larger context");
    const auto free = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.made; });
    if (free == slots_.end())
        fail(Errc::argument, "Batch::add: all ", slots_.size(), " slots are used; remove() a sequence that has ended");
    const int64_t slot = free - slots_.begin();
    *free = {};
    const auto held = lora ? lora->lock.read() : std::shared_lock<std::shared_mutex>();
    const auto start = batch_room::Clock::now();
    free->version = lora ? lora->version : 0;
    free->length = int64_t(prompt.size());
    free->lora = std::move(lora);
    auto made = std::make_unique<Generation>(
        *model->tokenizer, sampling, [free](std::string_view text) { free->text += text; return true; }, false);
    made->read(prompt);
    read(slot, prompt, *made, true);
    free->made = std::move(made);                      // only now is the slot taken
    free->stats.context = context;
    free->stats.cache = cache.type;
    free->stats.cache_bytes = cache.bytes() / int64_t(slots_.size());
    free->stats.prompt_tokens = int64_t(prompt.size());
    free->stats.prompt_seconds = batch_room::seconds_since(start);
    return slot;
}

// One run for sequences with the same adapter: what each has chosen goes into the cache.
void BatchImpl::decode(std::span<const int64_t> slots) {
    const std::shared_ptr<const LoraImpl> lora = slots_[size_t(slots[0])].lora;
    const auto held = lora ? lora->lock.read() : std::shared_lock<std::shared_mutex>();
    for (const int64_t slot : slots) renew(slot);
    const int64_t rows = int64_t(slots.size());
    Decoder& d = decoder(lora, rows, rows);
    DecoderBatch b;
    for (int64_t i = 0; i < rows; ++i) {
        const Slot& s = slots_[size_t(slots[size_t(i)])];
        append_cached(b, std::span(&*s.chosen, 1), int64_t(s.tokens.size()), slots[size_t(i)] * context);
        b.logit_rows.push_back(int32_t(i));
    }
    d.run(b);
    RowScores scores(d);
    for (int64_t i = 0; i < rows; ++i) {
        Slot& s = slots_[size_t(slots[size_t(i)])];
        s.scores = scores.at(i, s.made->wanted());
        s.tokens.push_back(*s.chosen);
        s.chosen.reset();
    }
}

// The next token of every sequence that has none waiting. What throws here, a mask for instance, ends the sequence that
// it is about; the others keep what they have chosen, and the next step goes on with it.
void BatchImpl::choose(const OnSlotText& on_text) {
    for (int64_t slot = 0; slot < int64_t(slots_.size()); ++slot) {
        Slot& s = slots_[size_t(slot)];
        if (!s.made || s.made->ended() || s.chosen) continue;
        try {
            s.text.clear();
            s.chosen = s.made->next(s.scores, int64_t(s.tokens.size()) < context);
            if (!s.text.empty() && on_text && !on_text(slot, s.text)) s.made->cancel();
        } catch (...) {
            s.made->cancel();
            s.chosen.reset();
            throw;
        }
        if (s.made->ended()) s.chosen.reset();
    }
}

bool BatchImpl::step(const OnSlotText& on_text) {
    const auto start = batch_room::Clock::now();
    std::vector<int64_t> ran, waiting;
    for (int64_t slot = 0; slot < int64_t(slots_.size()); ++slot)
        if (slots_[size_t(slot)].made && !slots_[size_t(slot)].made->ended()) ran.push_back(slot);
    choose(on_text);
    for (const int64_t slot : ran)
        if (slots_[size_t(slot)].chosen) waiting.push_back(slot);
    const auto adapter = [&](int64_t slot) { return slots_[size_t(slot)].lora.get(); };
    std::stable_sort(waiting.begin(), waiting.end(),
                     [&](int64_t a, int64_t b) { return std::less<const LoraImpl*>()(adapter(a), adapter(b)); });
    for (size_t first = 0, last = 0; first < waiting.size(); first = last) {
        const size_t most = std::min(waiting.size(), first + size_t(together_));
        while (last < most && adapter(waiting[last]) == adapter(waiting[first])) ++last;
        decode(std::span(waiting).subspan(first, last - first));
    }
    for (const int64_t slot : ran) slots_[size_t(slot)].stats.reply_seconds += batch_room::seconds_since(start);
    return !ran.empty();
}

const BatchImpl::Slot& BatchImpl::used(int64_t slot, const char* what) const {
    if (slot < 0 || slot >= int64_t(slots_.size()) || !slots_[size_t(slot)].made)
        fail(Errc::argument, what, ": slot ", slot, " has no sequence");
    return slots_[size_t(slot)];
}

Reply BatchImpl::remove(int64_t slot) {
    Slot& s = slots_[size_t(&used(slot, "Batch::remove") - slots_.data())];
    s.made->cancel();
    Reply reply = s.made->reply();
    reply.stats = s.stats;
    reply.stats.reply_tokens = int64_t(reply.tokens.size());
    reply.stats.context_used = int64_t(s.tokens.size());
    const std::shared_ptr<const LoraImpl> lora = s.lora;
    s = {};
    const auto runs = [&](const Slot& other) { return other.made && other.lora == lora; };
    if (lora && std::none_of(slots_.begin(), slots_.end(), runs))
        std::erase_if(decoders_, [&](const auto& d) { return d.first.first == lora.get(); });
    return reply;
}

bool BatchImpl::running(int64_t slot) const { return !used(slot, "Batch::running").made->ended(); }

int64_t BatchImpl::free_slots() const {
    return std::count_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.made; });
}

}}  // namespace qlora
