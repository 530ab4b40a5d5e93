// unigram.cpp - see unigram.h.
#include "src/text/unigram.h"

namespace qlora { inline namespace QLORA_ABI {
namespace unigram_room {

inline std::vector<std::pair<std::string_view, int32_t>> strings_of(const std::vector<Unigram::Piece>& pieces,
                                                                    std::string_view where) {
    std::vector<std::pair<std::string_view, int32_t>> strings;
    for (size_t i = 0; i < pieces.size(); ++i) {
        if (pieces[i].text.size() > Unigram::longest)
            fail(Errc::format, where, ": token ", pieces[i].id, " has ", pieces[i].text.size(), " bytes; ",
                 Unigram::longest, " are the most");
        strings.emplace_back(pieces[i].text, int32_t(i));
    }
    return strings;
}

struct Node {                                          // the best way to an end
    double score = 0;
    size_t begin = 0;
    Token id = -1;
    bool reached = false;
};

}  // namespace unigram_room

Unigram::Unigram(const std::vector<Piece>& pieces, double unknown, bool floats, std::string_view where)
    : trie_(unigram_room::strings_of(pieces, where)), unknown_(unknown), floats_(floats) {
    for (const Piece& piece : pieces) pieces_.push_back({piece.id, piece.score});
}

void Unigram::cut(std::string_view text, std::vector<Cut>& out) const {
    std::vector<unigram_room::Node> ends(text.size() + 1);
    for (size_t at = 0; at < text.size();) {
        check_stop();
        const double here = ends[at].score;
        const size_t next = at + size_t(utf8_at(text, at).bytes);
        const auto reach = [&](size_t end, Token id, double score) {
            unigram_room::Node& node = ends[end];
            const double sum = floats_ ? double(float(score + here)) : score + here;
            if (!node.reached || sum > node.score) node = {sum, at, id, true};
        };
        bool single = false;
        trie_.each(text, at, [&](int32_t value, size_t end) {
            reach(end, pieces_[size_t(value)].id, pieces_[size_t(value)].score);
            single = single || end == next;
        });
        if (!single) reach(next, -1, unknown_);
        at = next;
    }
    const size_t first = out.size();
    for (size_t end = text.size(); end > 0; end = ends[end].begin) out.push_back({ends[end].id, ends[end].begin, end});
    std::reverse(out.begin() + int64_t(first), out.end());
}

}}  // namespace qlora
