// pattern.cpp - reading an expression into parts, and matching by sets of places.
#include "src/text/pattern.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace pattern_room {

constexpr size_t longest_source = 4096;
constexpr int deepest = 100, most_repeats = 1000;

bool is_word(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}
bool is_space(unsigned char c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }
bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }
bool is_letter(unsigned char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

template <class Test>
std::bitset<256> bytes_where(const Test& test) {
    std::bitset<256> out;
    for (int c = 0; c < 256; ++c) out[size_t(c)] = test(static_cast<unsigned char>(c));
    return out;
}

}  // namespace pattern_room

// Recursive descent; the grammar is that of Python's re without flags.
class Pattern::Reader {
public:
    Reader(Pattern& out, std::string_view source, std::string_view where) : out_(out), s_(source), where_(where) {}
    int32_t all() {
        if (s_.size() > pattern_room::longest_source)
            fail(Errc::format, where_, ": the expression has ", s_.size(), " bytes, at most ",
                 pattern_room::longest_source, " are read");
        const int32_t root = either();
        if (at_ < s_.size()) bad("there is a ) too many");
        return root;
    }

private:
    [[noreturn]] void bad(std::string_view what) const {
        fail(Errc::format, where_, ": the expression \"", s_, "\" is none that Python reads: ", what, " at ", at_);
    }
    [[noreturn]] void beyond(std::string_view what) const {
        fail(Errc::unsupported, where_, ": the expression \"", s_, "\" has ", what, " at ", at_,
             ", which is not supported");
    }
    bool more() const { return at_ < s_.size(); }
    bool take(std::string_view text) {
        if (s_.substr(at_, text.size()) != text) return false;
        at_ += text.size();
        return true;
    }
    int32_t add(Part part) {
        out_.parts_.push_back(std::move(part));
        return int32_t(out_.parts_.size()) - 1;
    }

    int32_t either() {
        if (++depth_ > pattern_room::deepest)
            fail(Errc::format, where_, ": the groups of the expression are nested deeper than ", pattern_room::deepest);
        Part part{.kind = Kind::either};
        do part.parts.push_back(sequence());
        while (take("|"));
        --depth_;
        return part.parts.size() == 1 ? part.parts[0] : add(std::move(part));
    }

    int32_t sequence() {
        Part part{.kind = Kind::sequence};
        while (more() && s_[at_] != '|' && s_[at_] != ')') {
            const size_t start = at_;
            int32_t item = atom();
            const Kind kind = out_.parts_[size_t(item)].kind;
            const bool anchor = (kind == Kind::start || kind == Kind::end || kind == Kind::final_end ||
                                 kind == Kind::word_edge || kind == Kind::no_word_edge) &&
                                s_[start] != '(';
            part.parts.push_back(repeated(item, anchor));
        }
        return add(std::move(part));
    }

    // Greedy or lazy makes no difference to whether a text fits.
    int32_t repeated(int32_t item, bool anchor) {
        int64_t least = 0, most = 0;
        if (!quantifier(least, most)) return item;
        if (anchor) bad("nothing to repeat");
        if (take("+")) beyond("a possessive repetition");
        take("?");
        const size_t here = at_;
        int64_t a = 0, b = 0;
        if (quantifier(a, b)) {
            at_ = here;
            bad("multiple repeat");
        }
        return add({.kind = Kind::repeat, .parts = {item}, .least = least, .most = most});
    }

    bool quantifier(int64_t& least, int64_t& most) {
        if (take("*")) return least = 0, most = -1, true;
        if (take("+")) return least = 1, most = -1, true;
        if (take("?")) return least = 0, most = 1, true;
        const size_t start = at_;
        if (!take("{")) return false;
        const bool low = number(least), comma = take(",");
        const bool high = comma && number(most);
        if (!take("}") || (!low && !comma)) return at_ = start, false;         // a { that begins no count is itself
        if (!low) least = 0;
        if (!comma) most = least;
        else if (!high) most = -1;
        if (most >= 0 && most < least) bad("a smallest count above the largest");
        if (std::max(least, most) > pattern_room::most_repeats) beyond("a count above 1000");
        return true;
    }

    bool number(int64_t& n) {
        const size_t start = at_;
        for (n = 0; more() && pattern_room::is_digit(static_cast<unsigned char>(s_[at_])) && at_ - start < 9; ++at_)
            n = n * 10 + (s_[at_] - '0');
        return at_ > start;
    }

    int32_t atom() {
        const char c = s_[at_];
        if (c == '*' || c == '+' || c == '?') bad("nothing to repeat");
        if (c == '(') return group();
        if (c == '[') return set();
        if (c == '\\') return escape();
        int64_t a = 0, b = 0;
        if (c == '{') {
            const size_t start = at_;
            if (quantifier(a, b)) bad("nothing to repeat");
            at_ = start;
        }
        ++at_;
        if (c == '^') return add({.kind = Kind::start});
        if (c == '$') return add({.kind = Kind::end});
        if (c == '.')
            return add(
                {.kind = Kind::bytes, .bytes = pattern_room::bytes_where([](unsigned char x) { return x != '\n'; })});
        return one(c);
    }
    int32_t one(char c) { return add({.kind = Kind::bytes, .bytes = Bytes().set(static_cast<unsigned char>(c))}); }

    int32_t group() {
        ++at_;
        Kind around = Kind::sequence;
        if (take("?")) {
            if (take("=")) around = Kind::ahead;
            else if (take("!")) around = Kind::not_ahead;
            else if (take("P<")) {
                const size_t end = s_.find('>', at_);
                if (end == s_.npos || end == at_) bad("a group name without an end");
                at_ = end + 1;
            } else if (!take(":")) {
                beyond(take("<")                 ? "a lookbehind"
                       : take("P=") || take("(") ? "a reference to a group"
                       : take(">")               ? "an atomic group"
                                                 : "a flag or a comment");
            }
        }
        const int32_t inside = either();
        if (!take(")")) bad("a ( without its )");
        return around == Kind::sequence ? inside : add({.kind = around, .parts = {inside}});
    }

    // A class such as \d; false = the escape is none.
    bool named_class(char c, Bytes& bytes) const {
        namespace room = pattern_room;
        switch (c) {
            case 'd': bytes = room::bytes_where(room::is_digit); return true;
            case 'D': bytes = ~room::bytes_where(room::is_digit); return true;
            case 'w': bytes = room::bytes_where(room::is_word); return true;
            case 'W': bytes = ~room::bytes_where(room::is_word); return true;
            case 's': bytes = room::bytes_where(room::is_space); return true;
            case 'S': bytes = ~room::bytes_where(room::is_space); return true;
            default: return false;
        }
    }
    char escaped(char c) const {
        static constexpr std::string_view from = "nrtfva", to = "\n\r\t\f\v\a";
        if (const size_t i = from.find(c); i != from.npos) return to[i];
        if (c >= '1' && c <= '9') beyond("a reference to a group");
        if (c == '0' || c == 'x' || c == 'u' || c == 'U' || c == 'N') beyond("a character by its number or name");
        if (pattern_room::is_letter(static_cast<unsigned char>(c))) bad("an escape that there is not");
        return c;
    }

    int32_t escape() {
        ++at_;
        if (!more()) bad("a \\ with nothing behind it");
        const char c = s_[at_++];
        Part part{.kind = Kind::bytes};
        if (named_class(c, part.bytes)) return add(std::move(part));
        if (c == 'b') return add({.kind = Kind::word_edge});
        if (c == 'B') return add({.kind = Kind::no_word_edge});
        if (c == 'A') return add({.kind = Kind::start});
        if (c == 'Z') return add({.kind = Kind::final_end});
        return one(escaped(c));
    }

    // One member of [...]: a class, or a byte that may begin a range.
    bool member(Bytes& bytes, unsigned char& byte) {
        if (!more()) bad("a [ without its ]");
        char c = s_[at_++];
        if (c == '\\') {
            if (!more()) bad("a \\ with nothing behind it");
            c = s_[at_++];
            if (named_class(c, bytes)) return false;
            c = c == 'b' ? '\b' : escaped(c);
        }
        byte = static_cast<unsigned char>(c);
        return true;
    }

    int32_t set() {
        ++at_;
        const bool inverted = take("^");
        Part part{.kind = Kind::bytes};
        for (bool first = true; first || !take("]"); first = false) {
            Bytes named;
            unsigned char low = 0, high = 0;
            const bool single = member(named, low);
            if (s_.substr(at_, 1) == "-" && at_ + 1 < s_.size() && s_[at_ + 1] != ']') {
                ++at_;
                if (!single || !member(named, high) || high < low) bad("a range that is none");
                for (int c = low; c <= high; ++c) part.bytes.set(size_t(c));
            } else if (single) {
                part.bytes.set(low);
            } else {
                part.bytes |= named;
            }
        }
        if (inverted) part.bytes.flip();
        return add(std::move(part));
    }

    Pattern& out_;
    std::string_view s_, where_;
    size_t at_ = 0;
    int depth_ = 0;
};

struct Pattern::Match {
    const Pattern& pattern;
    std::string_view text;
    std::map<std::pair<int32_t, size_t>, Ends> known;

    bool edge(size_t at) const {
        const auto word = [&](size_t i) {
            return i < text.size() && pattern_room::is_word(static_cast<unsigned char>(text[i]));
        };
        return (at > 0 && word(at - 1)) != word(at);
    }

    Ends after_all(int32_t part, const Ends& from) {
        Ends out;
        for (size_t i = 0; i <= text.size(); ++i)
            if (from[i]) out |= after(part, i);
        return out;
    }

    Ends after(int32_t index, size_t from) {
        if (const auto found = known.find({index, from}); found != known.end()) return found->second;
        const Ends out = compute(pattern.parts_[size_t(index)], from);
        known[{index, from}] = out;
        return out;
    }

    Ends compute(const Part& part, size_t from) {
        Ends out, here;
        here.set(from);
        switch (part.kind) {
            case Kind::bytes:
                return from < text.size() && part.bytes[static_cast<unsigned char>(text[from])] ? here << 1 : out;
            case Kind::sequence:
                for (const int32_t p : part.parts) here = after_all(p, here);
                return here;
            case Kind::either:
                for (const int32_t p : part.parts) out |= after(p, from);
                return out;
            case Kind::repeat: return repeated(part, here);
            case Kind::start: return from == 0 ? here : out;
            case Kind::end: return from == text.size() || (from + 1 == text.size() && text[from] == '\n') ? here : out;
            case Kind::final_end: return from == text.size() ? here : out;
            case Kind::word_edge: return edge(from) ? here : out;
            // Python before 3.14: an empty text has none
            case Kind::no_word_edge: return edge(from) || text.empty() ? out : here;
            case Kind::ahead: return after(part.parts[0], from).any() ? here : out;
            case Kind::not_ahead: return after(part.parts[0], from).any() ? out : here;
        }
        return out;
    }

    Ends repeated(const Part& part, Ends here) {
        for (int64_t n = 0; n < part.least && here.any(); ++n) here = after_all(part.parts[0], here);
        Ends out = here;
        for (int64_t n = part.least; part.most < 0 || n < part.most; ++n) {
            here = after_all(part.parts[0], here) & ~out;
            if (here.none()) break;
            out |= here;
        }
        return out;
    }
};

Pattern::Pattern(std::string_view source, std::string_view where) { root_ = Reader(*this, source, where).all(); }

bool Pattern::fits(std::string_view text) const {
    if (text.size() > longest)
        fail(Errc::argument, "pattern: a text of ", text.size(), " bytes, at most ", longest, " are matched");
    return Match{*this, text, {}}.after(root_, 0)[text.size()];
}

bool Pattern::begins(std::string_view text) const {
    if (text.size() > longest)
        fail(Errc::argument, "pattern: a text of ", text.size(), " bytes, at most ", longest, " are matched");
    return Match{*this, text, {}}.after(root_, 0).any();
}

}}  // namespace qlora
