// batch.h - several sequences over slots of one cache.
//
// Slot s has the cache rows [s * context, (s + 1) * context). Sequences that share an adapter are decoded together, at
// most so many in a run as BackendImpl::rows_alike allows: the weights are read once, and each row of a product is what
// it would be alone. Prompts are read one by one, in the chunks of a session.
#pragma once
#include "src/base/exclusive.h"
#include "src/run/decoders.h"
#include "src/run/generation.h"

namespace qlora { inline namespace QLORA_ABI {

struct BatchImpl {
    using OnSlotText = std::function<bool(int64_t slot, std::string_view)>;

    std::shared_ptr<const ModelImpl> model;
    int64_t context = 0;                               // of each slot
    KvCache cache;
    Busy busy;                                         // taken by the public calls

    BatchImpl(std::shared_ptr<const ModelImpl>, const BatchOptions&);
    int64_t add(std::span<const Token> prompt, const Sampling&, std::shared_ptr<const LoraImpl>);
    bool step(const OnSlotText&);
    Reply remove(int64_t slot);
    bool running(int64_t slot) const;
    int64_t free_slots() const;
private:
    struct Slot {
        std::shared_ptr<const LoraImpl> lora;          // may be null
        Tokens tokens;                                 // whose keys are in the cache
        uint64_t version = 0;                          // of the factors they were computed with ...
        int64_t length = 0;                            // ... as part of a text of so many tokens (see turns_long)
        Scores scores;                                 // of the token after them
        std::optional<Token> chosen;                   // part of the reply, and not in the cache yet
        std::unique_ptr<Generation> made;              // null: the slot is free
        std::string text;                              // that the last token added
        SessionStats stats;
    };
    const Slot& used(int64_t slot, const char* what) const;
    // made: what the slot is for; timed: its time may be over before the end
    void read(int64_t slot, std::span<const Token> tokens, Generation& made, bool timed);
    void renew(int64_t slot);
    void choose(const OnSlotText&);
    void decode(std::span<const int64_t> slots);
    Decoder& decoder(const std::shared_ptr<const LoraImpl>&, int64_t rows, int64_t logit_rows);
    int64_t together_ = 0;                             // sequences in a run, at most
    std::vector<Slot> slots_;
    // The owner keeps the adapter: its address cannot be another's while it is a key.
    struct Made { std::shared_ptr<const LoraImpl> owner; std::unique_ptr<Decoder> decoder; };
    std::map<std::pair<const LoraImpl*, int64_t>, Made> decoders_;
    BufferRef arena_;
};

}}  // namespace qlora
