// token_starts.cpp - which bytes of a text its tokens stand for: what they spell is the normalized text as it is shown,
// some of it with a space in front (SPM's prefix), and the normalized text knows where its bytes came from.
#include "src/text/token_core.h"

namespace qlora { inline namespace QLORA_ABI {
namespace token_starts_room {

// For every byte of `spelled` (and its end) the byte of the text it stands for; empty where they do not go together.
inline std::vector<size_t> align(std::string_view text, std::string_view spelled,
                                 const std::vector<std::pair<std::string, std::string>>& replace) {
    std::string shown;                                 // the text through the decoder, character by character
    std::vector<size_t> where;
    for (size_t at = 0; at < text.size();) {
        const size_t bytes = size_t(utf8_at(text, at).bytes);
        std::string character(text.substr(at, bytes));
        for (const auto& [from, to] : replace)
            character = replace_all(std::move(character), from, to, most_grown(bytes));
        for (size_t i = 0; i < character.size(); ++i) where.push_back(at + (character.size() == bytes ? i : 0));
        shown += character;
        check_grown(shown.size(), most_grown(text.size()));
        at += bytes;
    }
    const bool front = spelled.size() == shown.size() + 1 && spelled[0] == ' ';
    if (spelled.substr(front) != shown) return {};
    if (front) where.insert(where.begin(), 0);
    where.push_back(text.size());
    return where;
}

}  // namespace token_starts_room

void TokenCore::add_starts(const Stretch& piece, size_t begin, std::span<const Token> tokens,
                           std::vector<int64_t>& starts) const {
    std::string spelled;
    std::vector<size_t> at;
    for (const Token id : tokens) {
        at.push_back(spelled.size());
        spelled += covered(id);
    }
    const bool exact = spelled == piece.text;
    const std::vector<size_t> where = exact ? std::vector<size_t>()
                                            : token_starts_room::align(piece.text, spelled, decode_.replace);
    for (const size_t offset : at) {
        // Nothing goes together where characters have no token: in proportion.
        const size_t guess = spelled.empty() ? 0 : size_t(uint64_t(offset) * piece.text.size() / spelled.size());
        starts.push_back(int64_t(piece.begin + piece.normal->from(begin + (exact           ? offset
                                                                           : where.empty() ? guess
                                                                                           : where[offset]))));
    }
}

}}  // namespace qlora
