// pattern.h - regular expressions as Python's re reads them, for the names of layers that PEFT's configurations choose
// by expression.
//
// std::regex will not do: its grammar is ECMAScript's, its time exponential, its stack as deep as the text is long.
// Names are short, so the set of places where a part of the expression can end is a few machine words, and computing it
// once for each part and place is all there is to matching.
#pragma once
#include "src/base/error.h"

#include <bitset>
#include <map>

namespace qlora { inline namespace QLORA_ABI {

class Pattern {
public:
    // Error{format} for what Python refuses too, Error{unsupported} for what this cannot read: references to groups,
    // flags, lookbehind, possessive and atomic parts, named characters.
    Pattern(std::string_view source, std::string_view where);
    bool fits(std::string_view text) const;            // re.fullmatch
    bool begins(std::string_view text) const;          // re.match: `$` in the expression is what ties it to the end
private:
    static constexpr size_t longest = 255;             // bytes of a text
    using Ends = std::bitset<longest + 1>;
    using Bytes = std::bitset<256>;
    enum class Kind : uint8_t {
        bytes,
        sequence,
        either,
        repeat,
        start,
        end,
        final_end,
        word_edge,
        no_word_edge,
        ahead,
        not_ahead
    };
    struct Part {
        Kind kind = Kind::sequence;
        Bytes bytes = {};                              // bytes: any one of these
        std::vector<int32_t> parts = {};               // of sequence, either, repeat, ahead
        int64_t least = 0, most = 0;                   // repeat; most -1: no limit
    };
    struct Match;
    class Reader;
    std::vector<Part> parts_;
    int32_t root_ = 0;
};

}}  // namespace qlora
