// normalize.cpp - every normalizer rewrites the text piece by piece; the bytes of a piece come from where the piece
// began.
#include "src/text/normalize.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

void check_grown(size_t bytes, size_t most) {
    if (bytes > most)
        fail(Errc::format, "tokenizer: its rules make ", bytes, " bytes of a text of which ", most,
             " are the most that real ones make; fetch the tokenizer again from where it was published");
}

// Up to where the first byte that came from elsewhere begins: the last piece belongs to it whole.
size_t NormalText::until(size_t end) const {
    if (origin_.empty() || end == 0) return end;
    const auto next = std::upper_bound(origin_.begin() + int64_t(end - 1), origin_.end(), origin_[end - 1]);
    return next == origin_.end() ? size_ : *next;
}

void NormalText::rewrite(const Piece& piece) {
    const size_t most = std::min<size_t>(most_grown(size_), UINT32_MAX);       // origins have 32 bits
    check_grown(text_.size(), most);
    std::string out;
    out.reserve(text_.size());
    std::vector<uint32_t> origin;
    bool moved = !origin_.empty();
    for (size_t at = 0; at < text_.size();) {
        const size_t before = out.size(), length = piece(at, out), grown = out.size() - before;
        check_grown(out.size(), most);
        const bool same = grown == length && out.compare(before, grown, text_, at, length) == 0;
        if (!same && !moved) {                         // the first change: what stands before it has not moved
            moved = true;
            origin.resize(before);
            for (size_t i = 0; i < before; ++i) origin[i] = uint32_t(i);
        }
        for (size_t i = 0; moved && i < grown; ++i) origin.push_back(uint32_t(from(same ? at + i : at)));
        at += length;
    }
    text_ = std::move(out);
    origin_ = std::move(origin);
}

// A piece is what the form may change together: a character and all behind it that do not begin a piece of their own.
// A run of characters that stay as they are is one piece.
void NormalText::bring_into(Form form) {
    const auto begins = [form](const Utf8Char& c) { return !c.bytes || !c.valid || form_begins(form, c.code); };
    // Of the plain characters letters compose with what follows, and < = > with U+0338 alone: others are pieces of
    // their own, also before a text that does not stay as it is.
    const auto stays = [this, form](size_t at) {
        const char c = text_[at];
        if (uint8_t(c) >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return false;
        if (c < '<' || c > '>') return true;
        for (Utf8Char next = utf8_at(text_, ++at); next.bytes && next.valid && !form_begins(form, next.code);
             next = utf8_at(text_, at += size_t(next.bytes)))
            if (next.code == 0x338) return false;
        return true;
    };
    rewrite([&](size_t at, std::string& out) {
        size_t end = at;
        for (Utf8Char c = utf8_at(text_, at), next; c.bytes && (!c.valid || form_settled(form, c.code)); c = next) {
            next = utf8_at(text_, end + size_t(c.bytes));
            if (!begins(next) && !stays(end)) break;
            end += size_t(c.bytes);
        }
        if (end > at) return out.append(text_, at, end - at), end - at;
        end = at + size_t(utf8_at(text_, at).bytes);
        for (Utf8Char c = utf8_at(text_, end); !begins(c); c = utf8_at(text_, end)) end += size_t(c.bytes);
        out += normal_form(form, std::string_view(text_).substr(at, end - at));
        return end - at;
    });
}

void NormalText::lower() {
    rewrite([this](size_t at, std::string& out) {
        const size_t bytes = size_t(utf8_at(text_, at).bytes);
        out += lowercase(std::string_view(text_).substr(at, bytes));
        return bytes;
    });
}

void NormalText::replace(std::string_view from, std::string_view to) {
    if (!from.empty() && text_.find(from) != text_.npos) replace(match_text(std::string(from)), to);
}

void NormalText::replace(const Matcher& from, std::string_view to) {
    rewrite([&](size_t at, std::string& out) {
        const Found found = from(text_, at);
        if (found.begin > at) out.append(text_, at, found.begin - at);
        else out += to;
        return found.begin > at ? found.begin - at : found.end - at;
    });
}

void NormalText::prepend(std::string_view front) {
    if (text_.empty()) return;
    bool first = true;
    rewrite([&](size_t at, std::string& out) {
        if (first) out += front;
        const size_t length = first ? size_t(utf8_at(text_, at).bytes) : text_.size() - at;
        first = false;
        out.append(text_, at, length);
        return length;
    });
}

void NormalText::strip(bool left, bool right) {
    size_t begin = text_.size(), end = 0;              // of what is not white space
    for (size_t at = 0; at < text_.size();) {
        const Utf8Char c = utf8_at(text_, at);
        const size_t next = at + size_t(c.bytes);
        if (!(char_class(c.code) & char_space)) {
            begin = std::min(begin, at);
            end = next;
        }
        at = next;
    }
    if (!left) begin = 0;
    if (!right) end = text_.size();
    keep(std::min(begin, end), end);
}

void NormalText::keep(size_t begin, size_t end) {
    if (begin == 0 && end == text_.size()) return;
    if (origin_.empty())
        for (size_t i = 0; i < text_.size(); ++i) origin_.push_back(uint32_t(i));
    text_ = text_.substr(begin, end - begin);
    origin_ = {origin_.begin() + int64_t(begin), origin_.begin() + int64_t(end)};
}

}}  // namespace qlora
