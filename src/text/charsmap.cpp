// charsmap.cpp - walks the double array: a unit of 32 bits has the label of its node in the low byte, 1 << 8 where a
// string ends there, and in its upper bits how far away (exclusive or) the children are, times 256 where 1 << 9 is set.
// The unit at that place itself, of a node where a string ends, is the value.
#include "src/text/charsmap.h"

#include <cstring>

namespace qlora { inline namespace QLORA_ABI {

Charsmap::Charsmap(std::string blob, std::string_view where) : blob_(std::move(blob)), where_(where) {
    if (blob_.empty()) return;
    uint32_t bytes = 0;
    if (blob_.size() > 4) std::memcpy(&bytes, blob_.data(), 4);
    if (bytes == 0 || bytes % 4 != 0 || bytes > blob_.size() - 4 || blob_.back() != 0)
        damaged(str("has ", blob_.size(), " bytes with a trie of ", bytes));
    units_ = bytes / 4;
}

void Charsmap::damaged(std::string_view what) const {
    fail(Errc::format, where_, ": the character map of the normalizer ", what, ": the file is damaged");
}

uint32_t Charsmap::unit(size_t at) const {
    uint32_t value = 0;
    std::memcpy(&value, blob_.data() + 4 + at * 4, 4);
    return value;
}

Charsmap::Match Charsmap::longest(std::string_view text, size_t at) const {
    Match best;
    if (units_ == 0) return best;
    const auto children = [](uint32_t u) { return size_t(u >> 10) << ((u & (1u << 9)) >> 6); };
    size_t node = children(unit(0));
    for (size_t i = at; i < text.size(); ++i) {
        if (i - at == longest_string) damaged("is walked without an end");
        node ^= uint8_t(text[i]);
        if (node >= units_) break;
        const uint32_t u = unit(node);
        if ((u & 0x800000FFu) != uint8_t(text[i])) break;
        node ^= children(u);
        if (!(u >> 8 & 1)) continue;
        const size_t strings = 4 + units_ * 4;
        const size_t from = node < units_ ? strings + (unit(node) & 0x7FFFFFFFu) : blob_.size();
        if (from >= blob_.size()) damaged("points outside of itself");
        const std::string_view rest = std::string_view(blob_).substr(from, longest_string + 1);
        const size_t length = rest.find('\0');         // the last byte is one
        if (length == rest.npos) damaged("has a replacement without an end");
        best = {rest.substr(0, length), i + 1 - at};
    }
    return best;
}

}}  // namespace qlora
