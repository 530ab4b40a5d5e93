// split.cpp - see split.h. A word ends where the pieces it is made of say, whatever stood before it: a match or what is
// between two of them.
#include "src/text/split.h"

#include "src/text/unicode_packed.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace split_room {

constexpr std::string_view special = ".^$*+?()[]{}|\\";

// Characters of which the pre-tokenizer Punctuation thinks otherwise than \p{P} does.
inline bool otherwise(char32_t code) {
    static const std::vector<std::pair<char32_t, char32_t>> runs = [] {
        std::vector<std::pair<char32_t, char32_t>> out;
        unicode_packed_room::PackedReader in{unicode_other_punctuation};
        uint32_t number = 0;
        char32_t at = 0;
        for (char letter = 0; in.next(number, letter); at += number)
            if (letter == 'N') out.emplace_back(at, at + number);
        return out;
    }();
    const auto after = std::upper_bound(runs.begin(), runs.end(), code,
                                        [](char32_t c, const auto& run) { return c < run.first; });
    return after != runs.begin() && code < std::prev(after)->second;
}

struct Class {                                         // of characters
    std::vector<std::pair<char32_t, char32_t>> ranges{};               // both ends included
    unsigned any = 0, none = 0;                        // CharClass bits: one of `any`, or other than `none`
    bool inverted = false;
    bool operator()(char32_t code) const {
        const unsigned mask = char_class(code);
        bool in = (mask & any) != 0 || (none && !(mask & none));
        for (const auto& [low, high] : ranges) in = in || (code >= low && code <= high);
        return in != inverted;
    }
};

// Runs of what `test` says, of at least `least` and at most `most` characters. Linear: a run that is too short is
// passed over whole.
template <class Test>
Matcher match_runs(Test test, size_t least, size_t most) {
    return [test, least, most](std::string_view text, size_t from) {
        size_t begin = from, count = 0;
        for (size_t at = from; at < text.size();) {
            const Utf8Char c = utf8_at(text, at);
            const size_t next = at + size_t(c.bytes);
            if (c.valid && test(c.code)) {
                if (count++ == 0) begin = at;
                if (count == most) return Found{begin, next};
            } else if (count >= least && count > 0) {
                return Found{begin, at};
            } else {
                count = 0;
            }
            at = next;
        }
        return count >= least && count > 0 ? Found{begin, text.size()} : Found{text.size(), text.size()};
    };
}

class Reader {                                         // of an expression; every answer is false where it is more
public:
    explicit Reader(std::string_view source) : s_(source) {}
    Matcher matcher() {
        Class c;
        if (!one(c)) return {};
        if (at_ == s_.size()) return match_runs(c, 1, 1);
        size_t least = 1, most = SIZE_MAX;
        if (s_.substr(at_) == "+") return match_runs(c, least, most);
        if (!counts(least, most) || at_ < s_.size()) return {};
        return match_runs(c, least, most);
    }

private:
    bool take(char c) {
        if (at_ >= s_.size() || s_[at_] != c) return false;
        ++at_;
        return true;
    }
    bool number(size_t& n) {
        const size_t start = at_;
        for (n = 0; at_ < s_.size() && s_[at_] >= '0' && s_[at_] <= '9' && at_ - start < 6; ++at_)
            n = n * 10 + size_t(s_[at_] - '0');
        return at_ > start;
    }
    bool counts(size_t& least, size_t& most) {         // {n} {n,} {n,m}
        if (!take('{') || !number(least)) return false;
        most = least;
        if (take(',') && !number(most)) most = SIZE_MAX;
        return take('}') && least > 0 && most >= least;
    }

    bool one(Class& c) {
        if (take('[')) return set(c);
        return item(c, false);
    }
    bool set(Class& c) {
        c.inverted = take('^');
        bool any = false;
        while (at_ < s_.size() && s_[at_] != ']') {
            if (s_[at_] == '[' || s_[at_] == '&') return false;
            Class low, high;
            if (!item(low, true)) return false;
            if (at_ + 1 < s_.size() && s_[at_] == '-' && s_[at_ + 1] != ']') {
                ++at_;
                if (low.ranges.empty() || !item(high, true) || high.ranges.empty() ||
                    high.ranges[0].first < low.ranges[0].first)
                    return false;
                low.ranges[0].second = high.ranges[0].first;
            }
            if (low.none && c.none) return false;      // two classes of others are no mask
            c.any |= low.any;
            c.none |= low.none;
            c.ranges.insert(c.ranges.end(), low.ranges.begin(), low.ranges.end());
            any = true;
        }
        return take(']') && any;
    }

    bool item(Class& c, bool inside) {                 // a character or \class
        const Utf8Char u = utf8_at(s_, at_);
        if (!u.valid) return false;
        at_ += size_t(u.bytes);
        if (u.code != '\\') {
            c.ranges = {{u.code, u.code}};
            // the last of a set is itself
            if (inside) return u.code != '-' || s_.substr(at_, 1) == "]";
            return u.code >= 128 || special.find(char(u.code)) == special.npos;
        }
        const Utf8Char e = utf8_at(s_, at_);
        if (!e.valid) return false;
        at_ += size_t(e.bytes);
        switch (e.code) {
            case 's': c.any = char_space; return true;
            case 'S': c.none = char_space; return true;
            case 'p': return category(c, false);
            case 'P': return category(c, true);
            case 'n': c.ranges = {{'\n', '\n'}}; return true;
            case 'r': c.ranges = {{'\r', '\r'}}; return true;
            case 't': c.ranges = {{'\t', '\t'}}; return true;
            default: c.ranges = {{e.code, e.code}}; break;
        }
        const bool letter = (e.code >= 'a' && e.code <= 'z') || (e.code >= 'A' && e.code <= 'Z') ||
                            (e.code >= '0' && e.code <= '9');
        return !letter;
    }
    bool category(Class& c, bool others) {
        static constexpr std::pair<std::string_view, unsigned> names[] = {
            {"{L}", char_letter},    {"{Lu}", char_upper},        {"{Ll}", char_lower},
            {"{Lt}", char_title},    {"{Lm}", char_modifier},     {"{Lo}", char_other_letter},
            {"{M}", char_mark},      {"{N}", char_number},        {"{P}", char_punctuation},
            {"{S}", char_symbol}};
        for (const auto& [name, mask] : names)
            if (s_.substr(at_, name.size()) == name) {
                at_ += name.size();
                (others ? c.none : c.any) = mask;
                return true;
            }
        return false;
    }

    std::string_view s_;
    size_t at_ = 0;
};

}  // namespace split_room

Matcher match_text(std::string mark) {
    return [mark = std::move(mark)](std::string_view text, size_t from) {
        const size_t hit = text.find(mark, from);
        return hit == text.npos ? Found{text.size(), text.size()} : Found{hit, hit + mark.size()};
    };
}

Matcher match_expression(std::string_view source) {
    if (source.empty()) return {};
    if (source.find_first_of(split_room::special) == source.npos) return match_text(std::string(source));
    return split_room::Reader(source).matcher();
}

Matcher match_white_space() {
    return split_room::match_runs([](char32_t c) { return (char_class(c) & char_space) != 0; }, 1, 1);
}

Matcher match_punctuation() {
    return split_room::match_runs(
        [](char32_t c) {
            const unsigned mask = char_class(c);
            if (c < 128) return (mask & (char_punctuation | char_symbol)) != 0;
            return ((mask & char_punctuation) != 0) != split_room::otherwise(c);
        },
        1, 1);
}

WordScanner split_at(Matcher match, Split split, bool inverted) {
    // What is between stands before a match as the match stands behind it.
    if (inverted && split == Split::with_previous) split = Split::with_next;
    else if (inverted && split == Split::with_next) split = Split::with_previous;
    WordScanner out([match, split](std::string_view text, size_t at) {
        Found found = match(text, at);
        const bool here = found.begin == at && found.end > at;
        if (split == Split::with_previous) return found.end;           // alone behind another match
        if (!here) return found.begin;
        if (split == Split::with_next) {
            const Found next = match(text, found.end);
            return next.begin;
        }
        for (Found next; split == Split::contiguous && found.end < text.size(); found = next) {
            next = match(text, found.end);
            if (next.begin > found.end || next.begin == text.size()) break;
        }
        return found.end;
    });
    if (split == Split::removed)
        out.dropped = [match, inverted](std::string_view word) { return (match(word, 0).begin == 0) != inverted; };
    return out;
}

}}  // namespace qlora
