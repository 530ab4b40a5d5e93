// decoders.h - decoders of a few row counts that share one arena, so that batches of any length run without planning
// anew.
#pragma once
#include "src/cpu/panels.h"
#include "src/model/decoder.h"
#include "src/run/sampler.h"

#include <map>

namespace qlora { inline namespace QLORA_ABI {

int64_t padded_rows(const ModelImpl&, int64_t rows);   // of the decoder that runs so many: a multiple of row_step()

class DecoderPool {
public:
    // Graphs are small beside what they compute, and soon made again (10 ms for 30 layers): those that ran last stay.
    static constexpr size_t most = 8;
    // spec.rows is ignored. The caller keeps what spec and lora point to.
    DecoderPool(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora, const DecoderSpec& spec)
        : model_(std::move(model)), lora_(lora), spec_(spec) {}
    // The decoder for a batch of so many rows: it has more, up to a multiple of the backend's row_step(). The largest
    // should be asked for first: the others then fit into its arena.
    Decoder& at(int64_t rows);
    const BufferRef& arena() const { return arena_; }
    void use_arena(BufferRef arena) { arena_ = std::move(arena); }     // of another pool, when never both run at once
    void use_panels(std::shared_ptr<PanelStore> panels);               // for the products of all its decoders
    const ModelImpl& model() const { return *model_; }
    const DecoderSpec& spec() const { return spec_; }
    int64_t graph_bytes() const;                       // of the largest graph that is held, without its arena
private:
    std::shared_ptr<const ModelImpl> model_;
    const LoraImpl* lora_;
    DecoderSpec spec_;
    BufferRef arena_;
    std::shared_ptr<PanelStore> panels_;
    struct Held { std::unique_ptr<Decoder> decoder; uint64_t last = 0; };      // last: when it was asked for
    std::map<int64_t, Held> decoders_;                 // by rows
    uint64_t asked_ = 0;
};

// How many candidates a decoder chooses (DecoderSpec::candidates): none where scores lie in memory of the host, as they
// are looked at there. 128 are enough for the usual 40 of which 64 may have been seen, and 1 KiB beside the 500 KiB of
// a row.
constexpr int64_t most_candidates = 128;
int64_t candidates_of(const ModelImpl&);
// The scores of a decoder's rows, after a run: of each the `wanted` best, where it is at most so many, else all.
class RowScores {
public:
    explicit RowScores(const Decoder& d) : decoder_(d) {}
    Scores at(int64_t row, int64_t wanted);
private:
    const Decoder& decoder_;
    std::vector<float> chosen_;                        // once somebody wants them
};

}}  // namespace qlora
