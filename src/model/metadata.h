// metadata.h - what savers need of the source beside its weights, held by value: whoever has a model never opens its
// file again, so that a save gives the same bytes after the source was deleted, moved or replaced.
//
// Copies, not maps: they are small beside the weights (6 MB for a GGUF vocabulary of 256,000 tokens, 33 MB for the
// largest tokenizer.json there is), all forms of a model share one, and no file must stay open and unchanged for them.
#pragma once
#include "src/format/gguf.h"

namespace qlora { inline namespace QLORA_ABI {

struct TextFile { std::string name, content; };

struct Metadata {
    // Of a GGUF file: its keys and values, its rope_freqs.weight (null: none), and GGUF's number for the type of
    // blk.0.attn_q.weight: general.file_type holds as long as that is the type.
    std::optional<GgufPairs> gguf;
    std::shared_ptr<const Weight> rope_freqs;
    int stored_type = -1;
    // Of a folder: config.json, and the small files that travel with a model.
    Json config;
    std::vector<TextFile> files;
    std::vector<std::string> notes;                    // what loading left out

    bool of_folder() const { return config.is_object(); }
    const std::string* file(std::string_view name) const {             // null: it was not there
        for (const TextFile& f : files) if (f.name == name) return &f.content;
        return nullptr;
    }
};

}}  // namespace qlora
