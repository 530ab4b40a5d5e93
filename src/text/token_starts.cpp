// token_starts.cpp - which bytes of a text its tokens stand for: walks what the tokens spell along the text.
//
// Most tokenizers spell the text itself, some with a space in front (SPM's prefix). Where a normal form changed it, the walk goes from
// one composed character to the next: the tokens that spell such a character all begin where it does.
#include "src/text/token_core.h"

namespace qlora::inline v0_1 {
namespace token_starts_room {

// The end of the characters from `at` that normalize together: a base and what may combine with it. Jamo compose into syllables.
inline size_t cluster_end(std::string_view text, size_t at) {
    const auto joins = [](char32_t c) { return (char_class(c) & char_mark) || (c >= 0x1160 && c <= 0x11FF); };
    Utf8Char c = utf8_at(text, at);
    do at += size_t(std::max(1, int(c.bytes))); while ((c = utf8_at(text, at)).bytes && joins(c.code));
    return at;
}

// For every byte of `spelled` (and its end) the byte of the text it stands for; empty where they do not go together.
inline std::vector<int64_t> align(std::string_view text, std::string_view spelled) {
    std::vector<int64_t> where;
    where.reserve(spelled.size() + 1);
    const bool front = spelled.starts_with(' ') && (!text.starts_with(' ') || spelled.size() > text.size());
    if (front) where.push_back(0);
    for (size_t at = 0; at < text.size();) {
        const size_t end = cluster_end(text, at);
        const std::string_view cluster = text.substr(at, end - at), rest = spelled.substr(where.size());
        if (rest.starts_with(cluster)) {
            for (size_t i = at; i < end; ++i) where.push_back(int64_t(i));
        } else {
            const std::string composed = nfc(cluster), spaced = replace_all(composed, "\xE2\x96\x81", " "), lowered = lowercase(composed);
            const auto fits = [&](const std::string& as) { return !as.empty() && rest.starts_with(as); };
            const std::string& as = fits(composed) ? composed : fits(spaced) ? spaced : lowered;
            if (!fits(as)) return {};
            where.insert(where.end(), as.size(), int64_t(at));
        }
        at = end;
    }
    if (where.size() != spelled.size()) return {};
    where.push_back(int64_t(text.size()));
    return where;
}

}  // namespace token_starts_room

void TokenCore::add_starts(std::string_view segment, size_t begin, std::span<const Token> tokens, std::vector<int64_t>& starts) const {
    std::string spelled;
    std::vector<size_t> at;
    for (const Token id : tokens) {
        at.push_back(spelled.size());
        spelled += piece(id, true);
    }
    std::vector<int64_t> where;
    if (spelled != segment) where = token_starts_room::align(segment, spelled);
    const bool exact = spelled == segment;
    for (const size_t offset : at) {
        // Nothing goes together, as after a normalization that drops characters: in proportion.
        const size_t guess = spelled.empty() ? 0 : size_t(uint64_t(offset) * segment.size() / spelled.size());
        starts.push_back(int64_t(begin) + (exact ? int64_t(offset) : where.empty() ? int64_t(guess) : where[offset]));
    }
}

}  // namespace qlora
