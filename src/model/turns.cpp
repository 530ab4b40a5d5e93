// turns.cpp - where each message of a printed dialogue stands, and which of the bytes the assistant speaks.
//
// The interpreter reports what was printed while a message was the loop's current one (during): call markup, think
// blocks and end marks too. And what came out of a message's strings (from): where nothing was printed during it, as in
// templates that print an answer while they are at its question, that is its region. Then, for a message m of the
// assistant,
//     begin = behind what the template, given the messages before m, prints as generation prompt, as far as the region
//     starts with it
//     end   = behind the last end mark of the region; if it has none, behind the one that follows at once or after
//           white space
#include "src/model/turns.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace turns_room {

using Span = RenderedTemplate::Span;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool touches(const std::vector<Span>& spans, int64_t begin, int64_t end) {
    const auto at = std::upper_bound(spans.begin(), spans.end(), begin,
                                     [](int64_t b, const Span& s) { return b < s.end; });
    return at != spans.end() && at->begin < end;
}

// The spans of one message as one: pieces that nothing of another message parts belong together, and of several such
// groups the one that holds most of the message's own text is meant (a name from a call may be printed once more beside
// its result).
Span gathered(const std::vector<Span>& spans, const std::vector<Span>& own, int64_t message) {
    Span best{0, 0, message}, group{0, 0, message};
    int64_t best_own = -1;
    const auto close = [&] {
        if (group.begin == group.end) return;
        int64_t held = 0;
        for (const Span& s : own)
            if (s.message == message)
                held += std::max<int64_t>(0, std::min(s.end, group.end) - std::max(s.begin, group.begin));
        if (held >= best_own) {
            best = group;
            best_own = held;
        }
        group = {0, 0, message};
    };
    for (const Span& s : spans) {
        if (s.begin == s.end || s.message < 0) continue;
        if (s.message != message) close();
        else if (group.begin == group.end) group = s;
        else group.end = s.end;
    }
    close();
    return best;
}

struct Finder {
    const RenderedTemplate& full;
    const PrintFirst& print_first;
    std::span<const std::string> end_marks;
    std::string_view text = full.text;
    std::vector<Span> printed = {};                    // during, and what is from a message and during none
    // what last opened a reply, for turns before which the template refuses to print
    std::optional<std::string> known = {};

    Finder(const RenderedTemplate& f, const PrintFirst& p, std::span<const std::string> e)
        : full(f), print_first(p), end_marks(e), printed(f.during) {
        for (const Span& s : full.from) if (!touches(full.during, s.begin, s.end)) printed.push_back(s);
        std::sort(printed.begin(), printed.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    }

    Span region(int64_t message) const {
        const Span said = gathered(printed, full.from, message);
        return said.begin < said.end ? said : gathered(full.from, full.from, message);
    }

    // What opens the reply to the first `count` messages: what is printed behind all of them, and what the wish for a
    // reply adds.
    std::vector<std::string> openings(int64_t count, const RenderedTemplate& asked) const {
        int64_t owned = 0;
        for (const auto* spans : {&asked.during, &asked.from})
            for (const Span& s : *spans) owned = std::max(owned, s.end);
        std::vector<std::string> all{asked.text.substr(size_t(owned))};
        if (const std::optional<RenderedTemplate> without = print_first(count, false)) {
            const auto differ =
                std::mismatch(asked.text.begin(), asked.text.end(), without->text.begin(), without->text.end()).first;
            all.emplace_back(differ, asked.text.end());
        }
        std::erase(all, std::string());
        return all;
    }

    // Where a common prefix may end: not inside a mark ("<think>" and "<tool_call>" share a "<") or a word.
    static size_t whole_marks(std::string_view common) {
        size_t n = common.size();
        while (n > 0 && !is_space(common[n - 1]) &&
               std::string_view(">]}:").find(common[n - 1]) == std::string_view::npos)
            --n;
        return n;
    }

    bool nobodys(int64_t at) const { return !touches(printed, at, at + 1) && !touches(full.content, at, at + 1); }

    int64_t behind_opening(const Span& r, int64_t message, int64_t count) {
        int64_t own = r.end, left = r.begin;           // own: the first byte that the message itself brought
        for (const Span& s : full.from)
            if (s.message == message && s.end > r.begin && s.begin < r.end) {
                own = std::max(s.begin, r.begin);
                break;
            }
        while (left > 0 && nobodys(left - 1)) --left;
        const int64_t right = unclaimed_end(r);
        std::optional<RenderedTemplate> asked = print_first(message, true);
        if (asked && text.starts_with(asked->text)) {  // the usual case: what the model is given when it is to say this
            const int64_t begin = int64_t(asked->text.size());
            if (begin >= left && begin <= right) {
                known = asked->text.substr(size_t(std::min(r.begin, begin)));
                return begin;
            }
        }
        std::vector<std::string> all;
        if (asked) all = openings(message, *asked);
        else if (known) all = {*known};
        else if ((asked = print_first(count, true))) all = openings(count, *asked);
        else return own < r.end ? own : r.begin;       // the template refuses everything but the whole
        int64_t begin = r.begin;
        for (const std::string& opening : all)
            for (const int64_t from : {r.begin, left})
                if (text.substr(size_t(from)).starts_with(opening))
                    return std::min(from + int64_t(opening.size()), right);
        for (const std::string& opening : all) {
            const std::string_view head = text.substr(size_t(r.begin), size_t(own - r.begin)),
                                   before = text.substr(size_t(left), size_t(own - left));
            if (const size_t hit = before.find(opening); hit != before.npos)
                return left + int64_t(hit + opening.size());
            size_t overlap = std::min(head.size(), opening.size());
            while (overlap > 0 && !opening.ends_with(head.substr(0, overlap))) --overlap;
            const size_t common = size_t(std::mismatch(head.begin(), head.end(), opening.begin(), opening.end()).first -
                                         head.begin());
            begin = std::max(begin, r.begin + int64_t(std::max(overlap, whole_marks(head.substr(0, common)))));
        }
        return begin;
    }

    int64_t mark_at(int64_t at) const {                // length of the end mark that the template prints there
        size_t longest = 0;
        for (const std::string& mark : end_marks)
            if (mark.size() > longest && text.substr(size_t(at)).starts_with(mark) &&
                !touches(full.content, at, at + int64_t(mark.size())))
                longest = mark.size();
        return int64_t(longest);
    }

    int64_t unclaimed_end(const Span& r) const {
        int64_t at = r.end;
        while (at < int64_t(text.size()) && nobodys(at)) ++at;
        return at;
    }

    int64_t end_of(const Span& r, int64_t begin) const {
        if (begin > r.end) {    // only a header was known to be the message's: what follows is, to the first mark
            const int64_t right = unclaimed_end(r);
            for (int64_t at = begin; at < right; ++at) if (const int64_t length = mark_at(at)) return at + length;
            return right;
        }
        for (int64_t at = r.end - 1; at >= begin; --at)
            if (const int64_t length = mark_at(at); length && at + length <= r.end) return at + length;
        int64_t at = r.end;
        while (at < int64_t(text.size()) && is_space(text[size_t(at)]) && !touches(full.content, at, at + 1)) ++at;
        const int64_t length = at < int64_t(text.size()) ? mark_at(at) : 0;
        return length ? at + length : r.end;
    }
};

}  // namespace turns_room

std::vector<Turn> find_turns(const RenderedTemplate& full, const Json& messages, const PrintFirst& print_first,
                             std::span<const std::string> end_marks) {
    turns_room::Finder finder(full, print_first, end_marks);
    std::vector<Turn> turns;
    const int64_t count = int64_t(messages.array().size());
    for (int64_t m = 0; m < count; ++m) {
        Turn turn;
        turn.message = m;
        turn.assistant = is_assistant(messages.array()[size_t(m)]);
        const RenderedTemplate::Span r = finder.region(m);
        turn.begin = r.begin;
        turn.end = r.end;
        if (turn.assistant && !full.marks_generation && r.begin < r.end) {
            turn.begin = finder.behind_opening(r, m, count);
            turn.end = std::max(turn.begin, finder.end_of(r, turn.begin));
        }
        turns.push_back(turn);
    }
    return turns;
}

}}  // namespace qlora
