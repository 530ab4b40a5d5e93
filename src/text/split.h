// split.h - where a pattern is found in a text, and the words it cuts the text into.
#pragma once
#include "src/text/unicode.h"

#include <functional>

namespace qlora { inline namespace QLORA_ABI {

struct Found { size_t begin = 0, end = 0; };           // of a text; begin at its end: nowhere
// the first match that begins at `from` or behind; matches are not empty
using Matcher = std::function<Found(std::string_view text, size_t from)>;

Matcher match_text(std::string text);
// Of an expression that is one character or class of characters, with at most a quantifier: "\s+", " {2,}",
// "[^\r\n\p{L}]", "\p{N}{1,3}"; or plain characters. Null: it is more than that.
Matcher match_expression(std::string_view source);
Matcher match_white_space();
Matcher match_punctuation();                           // of ASCII, and P

// The end of the word that begins at `at` (at < text.size()); always beyond `at`.
struct WordScanner {
    std::function<size_t(std::string_view text, size_t at)> end;
    std::function<bool(std::string_view word)> dropped = {};           // null: no word is
    // never by itself: whether a scanner is a function must not be asked while it is copied
    template <class F> requires (!std::same_as<F, WordScanner>) &&
                                std::convertible_to<F, std::function<size_t(std::string_view, size_t)>>
    WordScanner(F f) : end(std::move(f)) {}
    size_t operator()(std::string_view text, size_t at) const { return end(text, at); }
};
using WordScanners = std::vector<WordScanner>;         // passes: each cuts the words of the one before it

// What becomes of the matches: words of their own, one word where they touch, parts of the word before or after, none.
enum class Split : uint8_t { isolated, contiguous, with_previous, with_next, removed };
// inverted: what is between the matches takes their place
WordScanner split_at(Matcher, Split, bool inverted = false);

}}  // namespace qlora
