// render_chat.cpp - prints a dialogue through the chat template, encodes it, and marks the tokens of the assistant.
//
// The whole text is encoded at once, as Hugging Face does, so that merges across the border of template and message come out alike.
// Only where a message contains the text of a control token ("<|im_end|>" typed by a user) is the text cut at that message, which is
// then encoded as mere text: nobody can end a turn, or open another, from inside a message.
#include "src/model/dialogue.h"

#include <algorithm>

namespace qlora::inline v0_1 {
namespace render_chat_room {

using Span = RenderedTemplate::Span;

struct Encoded { Tokens tokens; std::vector<int64_t> begin; };         // begin: byte of the text where each token starts

bool is_control(const TokenizerImpl& t, Token id) { return t.piece(id, false).empty() && !t.piece(id, true).empty(); }
bool ends_reply(const TokenizerImpl& t, Token id) { return std::find(t.end_of_reply.begin(), t.end_of_reply.end(), id) != t.end_of_reply.end(); }

// Encodes text[from, to) and finds where each token starts by walking the pieces along the text. A piece may carry a space that the
// text has not (the SPM prefix). False where the pieces do not spell the text, as after a normalization.
bool encode_range(const TokenizerImpl& t, std::string_view text, int64_t from, int64_t to, bool as_template, Encoded& out) {
    const size_t first = out.tokens.size();
    const std::string_view range = text.substr(size_t(from), size_t(to - from));
    if (as_template) t.encode_template(range, out.tokens);
    else t.encode(range, out.tokens);
    size_t at = 0;
    bool spelled = true;
    for (size_t i = first; i < out.tokens.size(); ++i) {
        out.begin.push_back(from + int64_t(std::min(at, range.size())));
        const std::string piece = t.piece(out.tokens[i], true);
        const std::string_view rest = range.substr(std::min(at, range.size()));
        if (rest.starts_with(piece)) at += piece.size();
        else if (piece.starts_with(' ') && rest.starts_with(std::string_view(piece).substr(1))) at += piece.size() - 1;
        else spelled = false;
    }
    return spelled && at == range.size();
}

// The message spans that a control token reaches into.
std::vector<Span> hostile_spans(const TokenizerImpl& t, const Encoded& e, const RenderedTemplate& r) {
    std::vector<Span> hostile;
    size_t token = 0;
    for (const Span& span : r.content) {
        while (token < e.tokens.size() && (token + 1 < e.tokens.size() ? e.begin[token + 1] : int64_t(r.text.size())) <= span.begin) ++token;
        for (size_t i = token; i < e.tokens.size() && e.begin[i] < span.end; ++i) {
            if (!is_control(t, e.tokens[i])) continue;
            if (hostile.empty() || hostile.back().begin != span.begin) hostile.push_back(span);
            break;
        }
    }
    return hostile;
}

// Cuts the text at the given spans, which are encoded as text, and at the borders of the mask.
Encoded encode_pieces(const TokenizerImpl& t, const RenderedTemplate& r, const std::vector<Span>& as_text, const std::vector<Span>& mask) {
    std::vector<int64_t> cuts{0, int64_t(r.text.size())};
    for (const auto* spans : {&as_text, &mask})
        for (const Span& s : *spans) cuts.insert(cuts.end(), {s.begin, s.end});
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    Encoded out;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        const bool message = std::any_of(as_text.begin(), as_text.end(), [&](const Span& s) { return s.begin <= cuts[i] && cuts[i + 1] <= s.end; });
        const size_t first = out.tokens.size();
        if (!encode_range(t, r.text, cuts[i], cuts[i + 1], !message, out))
            std::fill(out.begin.begin() + int64_t(first), out.begin.end(), cuts[i]);        // all of a piece lies on one side of the mask
    }
    return out;
}

Encoded encode_rendered(const TokenizerImpl& t, const RenderedTemplate& r, const std::vector<Span>& mask) {
    Encoded whole;
    const bool spelled = encode_range(t, r.text, 0, int64_t(r.text.size()), true, whole);
    if (!spelled) return encode_pieces(t, r, r.content, mask);
    const std::vector<Span> hostile = hostile_spans(t, whole, r);
    return hostile.empty() ? whole : encode_pieces(t, r, hostile, mask);
}

// A model's own template prints the start of text if it wants one; the fallbacks leave it to us.
void add_start(const TokenizerImpl& t, bool own_template, Encoded& e) {
    if (own_template || !t.add_bos || t.bos < 0 || (!e.tokens.empty() && e.tokens[0] == t.bos)) return;
    e.tokens.insert(e.tokens.begin(), t.bos);
    e.begin.insert(e.begin.begin(), -1);
}

std::string_view trimmed(std::string_view s) {
    while (!s.empty() && std::string_view(" \t\r\n").find(s.front()) != s.npos) s.remove_prefix(1);
    while (!s.empty() && std::string_view(" \t\r\n").find(s.back()) != s.npos) s.remove_suffix(1);
    return s;
}

}  // namespace render_chat_room

bool is_assistant(const Json& message) {
    const Json* role = message.find("role");
    return role && role->is_string() && (role->string() == "assistant" || role->string() == "model");
}

DialogueRenderer::DialogueRenderer(const TokenizerImpl& tokenizer) : tokenizer_(tokenizer) {
    source_ = own_template() ? tokenizer.chat_template : fallback_chat_template([&](std::string_view token) { return tokenizer.id_of(token) >= 0; });
    template_ = ChatTemplate::parse(source_, own_template() ? "chat template of the model" : "built-in chat template");
}

RenderedTemplate DialogueRenderer::print(const Json& messages, const Json& extra, bool reply_next) const {
    Json variables = extra;
    if (!variables.find("tools")) variables.set("tools", Json());      // the reference always passes it
    variables.set("messages", messages).set("add_generation_prompt", reply_next);
    variables.set("bos_token", tokenizer_.bos_text).set("eos_token", tokenizer_.eos_text);
    return template_->render(variables);
}

// Where the assistant speaks, from printing the dialogue up to each of its turns. The begin must be a prefix of the full text; the end
// is taken from the print that includes the turn if that is a prefix too, else (templates that print a turn differently once others
// follow) from its text. encode() then cuts every span after its end-of-reply token.
std::vector<RenderedTemplate::Span> DialogueRenderer::assistant_spans(const Dialogue& dialogue, const RenderedTemplate& full) const {
    std::vector<RenderedTemplate::Span> spans;
    const std::string_view text = full.text;
    size_t cursor = 0;                                 // everything before it belongs to earlier messages
    const Json::Array& list = dialogue.messages.array();
    for (size_t i = 0; i < list.size(); ++i) {
        const Json* content = list[i].find("content");
        const std::string_view said = content && content->is_string() ? render_chat_room::trimmed(content->string()) : std::string_view();
        const size_t found = said.empty() ? text.npos : text.find(said, cursor);
        if (!is_assistant(list[i])) {
            if (found != text.npos) cursor = found + said.size();
            continue;
        }
        size_t begin = text.npos, end = text.npos;
        // Some templates refuse a dialogue that is cut here (no user yet, roles out of turn): then the text of the turn decides.
        const auto printed = [&](size_t count, bool reply_next) -> std::string {
            try {
                return print(Json(Json::Array(list.begin(), list.begin() + int64_t(count))), dialogue.variables, reply_next).text;
            } catch (const Error&) {
                return {};
            }
        };
        if (i > 0) {
            const std::string before = printed(i, true);
            if (!before.empty() && before.size() >= cursor && text.starts_with(before)) begin = before.size();
        }
        if (begin == text.npos) begin = found;
        if (begin == text.npos) fail(Errc::unsupported, "chat template: cannot tell where message ", i + 1, " of ", list.size(), " (assistant) begins, because the template "
            "prints it differently; mark the assistant's text with {% generation %} ... {% endgeneration %} in the template");
        const std::string through = printed(i + 1, false);
        if (through.size() > begin && text.starts_with(through)) end = through.size();
        if (end == text.npos) end = found != text.npos ? found + said.size() : begin;
        spans.push_back({int64_t(begin), int64_t(end)});
        cursor = end;
    }
    return spans;
}

Rendered DialogueRenderer::reply(const Dialogue& dialogue) const {
    const RenderedTemplate full = print(dialogue.messages, dialogue.variables, true);
    render_chat_room::Encoded e = render_chat_room::encode_rendered(tokenizer_, full, {});
    render_chat_room::add_start(tokenizer_, own_template(), e);
    Rendered out{full.text, std::move(e.tokens), {}};
    out.trained.assign(out.tokens.size(), 0);
    return out;
}

TrainingText DialogueRenderer::train(const Dialogue& dialogue) const {
    const RenderedTemplate full = print(dialogue.messages, dialogue.variables, false);
    const std::vector<RenderedTemplate::Span> mask = full.marks_generation ? full.generation : assistant_spans(dialogue, full);
    render_chat_room::Encoded e = render_chat_room::encode_rendered(tokenizer_, full, mask);
    render_chat_room::add_start(tokenizer_, own_template(), e);
    TrainingText out;
    out.trained.assign(e.tokens.size(), 0);
    for (const Json& m : dialogue.messages.array()) out.turns.push_back({int64_t(out.turns.size()), is_assistant(m)});
    size_t token = 0, turn = 0;
    for (size_t s = 0; s < mask.size(); ++s) {
        while (token < e.tokens.size() && e.begin[token] < mask[s].begin) ++token;
        const size_t first = token;
        while (token < e.tokens.size() && e.begin[token] < mask[s].end) ++token;
        size_t end = token;
        while (end > first && !render_chat_room::ends_reply(tokenizer_, e.tokens[end - 1])) --end;
        if (end == first) {                            // none inside: the turn ends with the one that follows it, at once or after a space
            end = token;
            for (size_t next = token; next < std::min(token + 2, e.tokens.size()); ++next)
                if (render_chat_room::ends_reply(tokenizer_, e.tokens[next])) end = std::max(end, next + 1);
            token = end;
        }
        std::fill(out.trained.begin() + int64_t(first), out.trained.begin() + int64_t(end), uint8_t(1));
        while (turn < out.turns.size() && !out.turns[turn].assistant) ++turn;
        if (turn < out.turns.size()) {
            Turn& t = out.turns[turn++];
            t.begin = mask[s].begin;
            t.end = mask[s].end;
            t.first = int64_t(first);
            t.last = int64_t(end);
            t.trained = t.last - t.first;
        }
    }
    for (const std::string_view key : {"role", "content", "tool_calls", "name"}) if (knows(key)) out.read_keys.emplace_back(key);
    for (const std::string_view name : {"tools", "documents"}) if (knows(name)) out.read_variables.emplace_back(name);
    out.text = full.text;
    out.tokens = std::move(e.tokens);
    return out;
}

Json to_json(std::span<const Message> chat) {
    Json messages{Json::Array()};
    for (const Message& m : chat) messages.push(Json().set("role", m.role).set("content", m.content));
    return messages;
}

Rendered render_chat(const TokenizerImpl& tokenizer, std::span<const Message> chat, bool reply_next) {
    const DialogueRenderer renderer(tokenizer);
    const Dialogue dialogue{to_json(chat), {}};
    if (reply_next) return renderer.reply(dialogue);
    TrainingText text = renderer.train(dialogue);
    return {std::move(text.text), std::move(text.tokens), std::move(text.trained)};
}

}  // namespace qlora
