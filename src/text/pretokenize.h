// pretokenize.h - cuts text into words before byte-level BPE merges inside each: the known regular expressions as
// linear scanners.
#pragma once
#include "src/text/split.h"

namespace qlora { inline namespace QLORA_ABI {

// By the name in tokenizer.ggml.pre ("" = "default"). An unknown name is an error: a wrong cut is silently a worse
// model.
WordScanners word_scanners(std::string_view pre, std::string_view where);
// these vocabularies take a word that is a token as it is, without merging
bool whole_words_first(std::string_view pre);

// By the exact text of the regular expression in a tokenizer.json; empty = not one of the known ones.
WordScanners word_scanners_of_regex(std::string_view regex);
// From the one kind of file to the other; empty = has no counterpart. whole_words: a word that is a token is taken
// without merging.
std::string_view pre_of_regex(std::string_view regex, bool whole_words);
std::string_view regex_of_pre(std::string_view pre);
std::string_view family_of_pre(std::string_view pre);  // the first of the names that cut as this one does
size_t scan_gpt2(std::string_view text, size_t at);    // the expression of ByteLevel{use_regex}
size_t scan_digit(std::string_view text, size_t at);   // Digits{individual_digits}: every \p{N} alone
size_t scan_digits(std::string_view text, size_t at);  // runs of \p{N}

template <class Emit>                                  // Emit: void(std::string_view word)
void for_each_word(std::span<const WordScanner> passes, std::string_view text, Emit& emit) {
    if (passes.empty()) return emit(text);
    for (size_t at = 0; at < text.size();) {
        const size_t end = passes[0](text, at);
        const std::string_view word = text.substr(at, end - at);
        if (!passes[0].dropped || !passes[0].dropped(word)) for_each_word(passes.subspan(1), word, emit);
        at = end;
    }
}

}}  // namespace qlora
