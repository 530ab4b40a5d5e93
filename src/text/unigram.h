// unigram.h - the best cut of a text into tokens by the sum of their scores (Kudo, arXiv:1804.10959), exactly.
//
//   best(e) = max over the tokens t that end at e of best(e - |t|) + score(t)
//
// Where no token is one character long, the unknown one stands for it, with a score below all others. Equal sums: the
// cut that was found first stays. Linear in the text: no token is longer than `longest`.
#pragma once
#include "src/text/token_core.h"

namespace qlora { inline namespace QLORA_ABI {

class Unigram {
public:
    static constexpr size_t longest = 1024;            // bytes of a token
    struct Piece { std::string_view text; Token id = -1; double score = 0; };
    // floats: sums are rounded to float, as SentencePiece does; else they are doubles, as in tokenizers
    Unigram(const std::vector<Piece>& pieces, double unknown, bool floats, std::string_view where);
    struct Cut { Token id; size_t begin, end; };       // id -1: unknown
    void cut(std::string_view text, std::vector<Cut>& out) const;
private:
    TokenTrie trie_;                                   // values index pieces_
    struct Scored { Token id; double score; };
    std::vector<Scored> pieces_;
    double unknown_;
    bool floats_;
};

}}  // namespace qlora
