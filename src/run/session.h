// session.h - one conversation: the tokens whose keys and values are in the cache, and the dialogue they came from.
//
// Every turn renders the whole dialogue anew and keeps the part of the cache that agrees with it, so templates that
// rewrite earlier turns are right, and others cost the new tokens only.
#pragma once
#include "src/base/exclusive.h"
#include "src/model/dialogue.h"
#include "src/run/decoders.h"
#include "src/run/sampler.h"

namespace qlora { inline namespace QLORA_ABI {

// Cuts a stream of token pieces into whole UTF-8 characters and ends it before a stop text. Text that may still become
// either is held back.
class ReplyStream {
public:
    ReplyStream(const std::vector<std::string>& stop, const OnText& on_text) : stop_(stop), on_text_(on_text) {}
    bool add(std::string_view piece);                  // false: a stop text came, or the callback wants no more
    void finish();                                     // hands out what was held back
    std::string& text() { return text_; }
private:
    bool emit(size_t end);
    const std::vector<std::string>& stop_;
    const OnText& on_text_;
    std::string text_;                                 // the reply so far
    size_t sent_ = 0;                                  // bytes handed out
    bool done_ = false;
};

struct SessionImpl {
    std::shared_ptr<const ModelImpl> model;
    std::shared_ptr<const LoraImpl> lora;              // may be null
    KvCache cache;
    Tokens cached;                                     // token i has its key in row i, ...
    uint64_t cached_version = 0;                       // ... computed with the factors of this version
    std::vector<Message> history;
    SessionStats stats;
    std::atomic_flag busy;                             // taken by the public calls

    SessionImpl(std::shared_ptr<const ModelImpl>, std::shared_ptr<const LoraImpl>, const SessionOptions&);
    std::string chat(std::string_view user, const Sampling&, const OnText&);
    std::string complete(std::string_view prompt, const Sampling&, const OnText&, bool control = false);
    std::string complete(std::span<const Token> prompt, const Sampling&, const OnText&);
    // appends to the cache, after computing it anew where it is stale; scores after the last
    std::vector<float> feed(std::span<const Token> tokens);
private:
    std::vector<float> append(std::span<const Token> tokens);
    // opening: the reply begins a text, so the space that SPM vocabularies put there is not part of it. Nothing:
    // stopped within the prompt.
    std::optional<std::string> generate(const Tokens& prompt, bool opening, const Sampling&, const OnText&);
    std::vector<float> feed_chunk(Decoder&, std::span<const Token> tokens);
    Decoder& decoder(int64_t rows);
    const TokenizerImpl& tokenizer() const;
    std::unique_ptr<DialogueRenderer> renderer_;
    std::map<int64_t, std::unique_ptr<Decoder>> decoders_;
    BufferRef arena_;
};

}}  // namespace qlora
