// session.h - one conversation: the tokens whose keys and values are in the cache, and the dialogue they came from.
//
// Every turn renders the whole dialogue anew and keeps the part of the cache that agrees with it, so templates that
// rewrite earlier turns are right, and others cost the new tokens only.
#pragma once
#include "src/base/exclusive.h"
#include "src/model/dialogue.h"
#include "src/run/decoders.h"
#include "src/run/generation.h"

namespace qlora { inline namespace QLORA_ABI {

struct SessionImpl {
    std::shared_ptr<const ModelImpl> model;
    std::shared_ptr<const LoraImpl> lora;              // may be null
    KvCache cache;
    Tokens cached;                                     // token i has its key in row i, ...
    uint64_t cached_version = 0;                       // ... computed with the factors of this version ...
    int64_t cached_length = 0;                         // ... as part of a text of so many tokens (see turns_long)
    std::vector<Message> history;
    SessionStats stats;
    Busy busy;                                         // taken by the public calls

    SessionImpl(std::shared_ptr<const ModelImpl>, std::shared_ptr<const LoraImpl>, const SessionOptions&);
    Reply chat(std::span<const Message> more, const RenderOptions&, const Sampling&, const OnText&);
    Reply complete(std::string_view prompt, const Sampling&, const OnText&, bool control = false);
    Reply complete(std::span<const Token> prompt, const Sampling&, const OnText&);
    void adapt(std::shared_ptr<const ModelImpl>, std::shared_ptr<const LoraImpl>);     // null: none
    // appends to the cache, after computing it anew where it is stale; of the scores after the last, the `wanted` best
    // at least, 0 = all
    Scores feed(std::span<const Token> tokens, int64_t wanted = 0);
    // The state of a session (session_state.cpp).
    std::unique_ptr<SessionImpl> fork() const;
    std::string save() const;
    void restore(std::string_view saved);
private:
    Scores append(std::span<const Token> tokens, int64_t wanted);
    // opening: as in Generation
    Reply generate(const Tokens& prompt, bool opening, const Sampling&, const OnText&);
    std::optional<Finish> read_prompt(const Tokens& prompt, const OnText&, Generation&, Scores&);
    Scores feed_chunk(Decoder&, std::span<const Token> tokens, int64_t wanted);
    Decoder& decoder(int64_t rows);
    const TokenizerImpl& tokenizer() const;
    std::unique_ptr<DialogueRenderer> renderer_;
    std::map<int64_t, std::unique_ptr<Decoder>> decoders_;
    BufferRef arena_;
};

// Tokens that a session or a slot of a batch holds: as wanted (0: the model's own, 4096 at most), or an Error.
int64_t session_context(const ModelImpl&, int64_t wanted, const char* what);

}}  // namespace qlora
