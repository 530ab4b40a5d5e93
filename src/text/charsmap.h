// charsmap.h - the compiled normalizer of a SentencePiece model: which characters become which others.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

// As the file has it: the bytes of a trie (u32), the trie as a double array of u32, then the replacements, each with a
// zero behind it.
class Charsmap {
public:
    explicit Charsmap(std::string blob, std::string_view where);       // empty: nothing changes
    bool empty() const { return blob_.empty(); }
    struct Match { std::string_view text; size_t length = 0; };        // length 0: nothing begins here
    Match longest(std::string_view text, size_t at) const;
private:
    // Of a string or its replacement (those that there are have some 50): a trie that leads back into itself, or a
    // replacement that is passed over, would cost the square of a text.
    static constexpr size_t longest_string = 1024;
    uint32_t unit(size_t at) const;
    [[noreturn]] void damaged(std::string_view what) const;
    std::string blob_, where_;
    size_t units_ = 0;
};

}}  // namespace qlora
