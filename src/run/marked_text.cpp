// marked_text.cpp - see marked_text.h.
//
// The marks are read off a dialogue of two questions and two answers. Between a question and its answer stands x, the
// end of the user's turn and the opening of the assistant's; between an answer and the next question y, an end and an
// opening too. What x and y begin with alike is the end of a turn and the common part of the openings; what is left of
// each, from its last control token or white space on, is the mark.
#include "src/run/marked_text.h"

#include "src/run/tool_form.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace marked_text_room {

constexpr std::string_view question[] = {"qlora-question-one", "qlora-question-two"},
                           answer[] = {"qlora-answer-one", "qlora-answer-two"};

bool ends_reply(const TokenizerImpl& t, Token id) {
    return std::find(t.end_of_reply.begin(), t.end_of_reply.end(), id) != t.end_of_reply.end();
}
bool blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

struct Encoded {
    Tokens tokens;
    std::vector<int64_t> begin;
    int64_t end(size_t token, std::string_view text) const {
        return token + 1 < begin.size() ? begin[token + 1] : int64_t(text.size());
    }
};

Encoded encode(const TokenizerImpl& t, std::string_view text, bool control) {
    Encoded e;
    const RenderedTemplate::Span all{0, int64_t(text.size())};
    t.encode_rendered(text, control ? std::span<const RenderedTemplate::Span>() : std::span(&all, 1), e.tokens,
                      &e.begin);
    return e;
}

// A token is trained when it overlaps the span, as {% generation %} blocks are read by the reference.
bool train_span(MarkedText& out, const Encoded& e, size_t from, size_t to) {
    const auto after = [&](size_t at) {
        return std::upper_bound(e.begin.begin(), e.begin.end(), int64_t(at)) - e.begin.begin();
    };
    const int64_t first = std::max<int64_t>(0, after(from) - 1), last = after(to - 1);
    std::fill(out.trained.begin() + first, out.trained.begin() + last, uint8_t(1));
    return first < last;
}

MarkedText with_bos(const TokenizerImpl& t, MarkedText out, bool bos) {
    if (!bos || t.bos < 0 || (!out.tokens.empty() && out.tokens[0] == t.bos)) return out;
    out.tokens.insert(out.tokens.begin(), t.bos);
    out.trained.insert(out.trained.begin(), uint8_t(0));
    return out;
}

// The part of `between` that opens a turn, which differs from others at `split`: the whole word there, without the end
// of the turn before.
std::string opening(const TokenizerImpl& t, std::string_view between, size_t split) {
    size_t from = split;
    while (from > 0 && !blank(between[from - 1])) --from;
    const Encoded e = encode(t, between, true);
    for (size_t i = 0; i < e.tokens.size() && size_t(e.begin[i]) <= split; ++i)
        if (ends_reply(t, e.tokens[i])) from = std::max(from, size_t(e.end(i, between)));
    while (from < between.size() && blank(between[from])) ++from;
    return std::string(between.substr(from));
}

size_t common(std::string_view a, std::string_view b) {
    return size_t(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace marked_text_room

bool TurnMarks::in(std::string_view text) const {
    const auto holds = [&](const std::string& mark) { return !mark.empty() && text.find(mark) != text.npos; };
    return holds(user) || holds(assistant);
}

TurnMarks turn_marks_of(const TokenizerImpl& t, const DialogueRenderer& renderer) {
    using namespace marked_text_room;
    Dialogue d, opened;
    for (size_t i = 0; i < 2; ++i) {
        d.messages.push(Json().set("role", "user").set("content", question[i]));
        d.messages.push(Json().set("role", "assistant").set("content", answer[i]));
    }
    opened.messages = Json(Json::Array(d.messages.array().begin(), d.messages.array().begin() + 3));
    std::string text, reply;
    // some templates want tools; one that refuses both has no marks to look for
    for (const bool tools : {false, true}) try {
        if (tools) d.variables = opened.variables = Json().set("tools", Json().push(probe_tool(true)));
        text = renderer.reply(d).text;
        reply = renderer.reply(opened).text;
        break;
    } catch (const Error&) {
        if (tools) return {};
    }
    const auto between = [](std::string_view whole, std::string_view a, std::string_view b) -> std::string_view {
        const size_t from = whole.find(a);
        if (from == whole.npos) return {};
        const size_t begin = from + a.size(), end = b.empty() ? whole.size() : whole.find(b, begin);
        return end == whole.npos ? std::string_view() : whole.substr(begin, end - begin);
    };
    std::string_view x = between(text, question[0], answer[0]);
    const std::string_view y = between(text, answer[0], question[1]), prompt = between(reply, question[1], {});
    // A template may open a reply with more than it prints before an answer (<think>), and less is taken; or with
    // something else altogether.
    if (const size_t alike = common(x, prompt); alike > common(x, y)) x = x.substr(0, alike);
    const size_t split = common(x, y);
    return {opening(t, y, split), opening(t, x, split)};
}

MarkedText encode_marked(const TokenizerImpl& t, const TurnMarks& marks, std::string_view text, bool bos) {
    using namespace marked_text_room;
    Encoded e = encode(t, text, true);
    MarkedText out;
    out.trained.assign(e.tokens.size(), 0);
    for (size_t at = marks.assistant.empty() ? text.npos : text.find(marks.assistant); at != text.npos;) {
        const size_t begin = at + marks.assistant.size(), next = text.find(marks.assistant, begin);
        size_t end = std::min({next, marks.user.empty() ? text.npos : text.find(marks.user, begin), text.size()});
        const size_t first = size_t(std::lower_bound(e.begin.begin(), e.begin.end(), int64_t(begin)) - e.begin.begin());
        for (size_t i = first; i < e.tokens.size() && size_t(e.begin[i]) < end; ++i)
            if (ends_reply(t, e.tokens[i])) end = size_t(e.end(i, text));
        if (begin < end) {                             // else the text ends with an opened turn, as a prompt does
            ++out.turns;
            out.trained_turns += train_span(out, e, begin, end);
        }
        at = next;
    }
    out.tokens = std::move(e.tokens);
    return with_bos(t, std::move(out), bos);
}

MarkedText encode_after(const TokenizerImpl& t, std::string_view text, size_t from, bool bos, bool control) {
    using namespace marked_text_room;
    Encoded e = encode(t, text, control);
    MarkedText out;
    out.trained.assign(e.tokens.size(), 0);
    if (from < text.size()) train_span(out, e, from, text.size());
    out.tokens = std::move(e.tokens);
    return with_bos(t, std::move(out), bos);
}

}}  // namespace qlora
