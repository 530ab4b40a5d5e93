// render_chat.cpp - prints a dialogue through the chat template, encodes it, and marks the tokens of the assistant.
//
// The whole text is encoded at once, as Hugging Face does, so that merges across the border of template and message
// come out alike. What came from the messages is literal: a control token typed there ("<|im_end|>") stays text, and
// nobody can end a turn, or open another, from inside a message. A token is trained when it overlaps a stretch that is.
#include "src/model/turns.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace render_chat_room {

struct Encoded {
    Tokens tokens;
    std::vector<int64_t> begin, end;                   // the bytes of the text that each token stands for
};

Encoded encode(const TokenizerImpl& t, const RenderedTemplate& r, bool own_template) {
    Encoded e;
    t.encode_rendered(r.text, r.content, e.tokens, &e.begin);
    // A model's own template prints the start of text if it wants one; the fallbacks leave it to us.
    if (!own_template && t.add_bos && t.bos >= 0 && (e.tokens.empty() || e.tokens[0] != t.bos)) {
        e.tokens.insert(e.tokens.begin(), t.bos);
        e.begin.insert(e.begin.begin(), 0);
    }
    // Tokens that begin at one place (the bytes of a character, characters that became one) stand for the same bytes.
    e.end.assign(e.begin.size(), int64_t(r.text.size()));
    for (size_t i = e.begin.size(); i-- > 1;) e.end[i - 1] = e.begin[i - 1] == e.begin[i] ? e.end[i] : e.begin[i];
    return e;
}

// A dialogue without its system messages: where a user message follows, it begins with their texts.
struct Merged {
    Json messages{Json::Array()};
    std::vector<int64_t> from;                         // of each message of the whole dialogue: its place here, or -1
};

Merged merge_systems(const Json& messages) {
    Merged m;
    const Json::Array& list = messages.array();
    const auto text_of = [](const Json& message) {
        const Json* content = message.find("content");
        return content && content->is_string() ? content->string() : std::string();
    };
    std::string before;
    for (size_t i = 0; i < list.size(); ++i) {
        const size_t next = size_t(std::find_if_not(list.begin() + int64_t(i), list.end(), is_system) - list.begin());
        const bool asked = next < list.size() && list[next].find("role") && list[next].find("role")->string() == "user";
        if (next > i && asked) {                       // others are left to the template
            before += (before.empty() ? "" : "\n\n") + text_of(list[i]);
            m.from.push_back(-1);
            continue;
        }
        m.from.push_back(int64_t(m.messages.array().size()));
        Json message = list[i];
        if (!before.empty()) message.set("content", before + "\n\n" + text_of(message));
        before.clear();
        m.messages.push(std::move(message));
    }
    return m;
}

bool has_system(const Json& messages) {
    return std::any_of(messages.array().begin(), messages.array().end(), is_system);
}

}  // namespace render_chat_room

bool is_system(const Json& message) {
    const Json* role = message.find("role");
    return role && role->is_string() && role->string() == "system";
}

bool is_assistant(const Json& message) {
    const Json* role = message.find("role");
    return role && role->is_string() && (role->string() == "assistant" || role->string() == "model");
}

DialogueRenderer::DialogueRenderer(const TokenizerImpl& tokenizer, std::string chat_template)
    : tokenizer_(tokenizer), source_(std::move(chat_template)) {
    const char* called = !source_.empty() ? "RenderOptions::chat_template" : "chat template of the model";
    if (source_.empty()) source_ = tokenizer.chat_template;
    own_ = !source_.empty();
    if (!own_) source_ = fallback_chat_template([&](std::string_view token) { return tokenizer.id_of(token) >= 0; });
    template_ = ChatTemplate::parse(source_, own_ ? called : "built-in chat template");
    for (const Token id : tokenizer.end_of_reply) end_marks_.push_back(tokenizer.piece(id, true));
    for (const std::string_view name : reply_end_names()) end_marks_.emplace_back(name);       // under any vocabulary
    std::erase(end_marks_, std::string());
    takes_system_ = probe_system();
}

// A template without the role refuses the message or leaves it out; one that prints no such dialogue at all, for other
// reasons, is not meddled with.
bool DialogueRenderer::probe_system() const {
    constexpr const char *told = "qlora_probe_system", *asked = "qlora_probe_question";
    const Json question = Json().set("role", "user").set("content", asked),
               system = Json().set("role", "system").set("content", told);
    const auto printed = [&](const Json& messages) -> std::string {
        try {
            return print(messages, {}, true).text;
        } catch (const Error& error) {
            if (error.code == Errc::cancelled) throw;
            return {};
        }
    };
    if (printed(Json().push(system).push(question)).find(told) != std::string::npos) return true;
    return printed(Json().push(question)).find(asked) == std::string::npos;
}

RenderedTemplate DialogueRenderer::print(const Json& messages, const Json& extra, bool reply_next) const {
    Json variables = extra;
    if (!variables.find("tools")) variables.set("tools", Json());      // the reference always passes it
    variables.set("messages", messages).set("add_generation_prompt", reply_next);
    variables.set("bos_token", tokenizer_.bos_text).set("eos_token", tokenizer_.eos_text);
    return template_->render(variables);
}

Rendered DialogueRenderer::reply(const Dialogue& dialogue, std::string_view prefill) const {
    using namespace render_chat_room;
    const bool merge = !takes_system_ && has_system(dialogue.messages);
    RenderedTemplate full = print(merge ? merge_systems(dialogue.messages).messages : dialogue.messages,
                                  dialogue.variables, true);
    if (!prefill.empty()) {
        full.content.push_back({int64_t(full.text.size()), int64_t(full.text.size() + prefill.size())});
        full.text += prefill;
    }
    render_chat_room::Encoded e = render_chat_room::encode(tokenizer_, full, own_template());
    const size_t count = e.tokens.size();
    return {std::move(full.text), std::move(e.tokens), std::vector<uint8_t>(count, 0)};
}

TrainingText DialogueRenderer::train(const Dialogue& dialogue, bool literal) const {
    if (takes_system_ || !render_chat_room::has_system(dialogue.messages)) return train_printed(dialogue, literal);
    render_chat_room::Merged merged = render_chat_room::merge_systems(dialogue.messages);
    TrainingText out = train_printed({std::move(merged.messages), dialogue.variables}, literal);
    std::vector<Turn> turns;
    for (size_t i = 0; i < merged.from.size(); ++i) {
        Turn& turn = turns.emplace_back(merged.from[i] < 0 ? Turn{} : out.turns[size_t(merged.from[i])]);
        turn.message = int64_t(i);
    }
    out.turns = std::move(turns);
    return out;
}

TrainingText DialogueRenderer::train_printed(const Dialogue& dialogue, bool literal) const {
    RenderedTemplate full = print(dialogue.messages, dialogue.variables, false);
    const Json::Array& list = dialogue.messages.array();
    const auto print_first = [&](int64_t count, bool reply_next) -> std::optional<RenderedTemplate> {
        try {
            return print(Json(Json::Array(list.begin(), list.begin() + count)), dialogue.variables, reply_next);
        } catch (const Error&) {                       // no user yet, roles out of turn: find_turns does without
            return std::nullopt;
        }
    };
    TrainingText out;
    out.turns = find_turns(full, dialogue.messages, print_first, end_marks_);
    if (!literal) full.content.clear();
    render_chat_room::Encoded e = render_chat_room::encode(tokenizer_, full, own_template());
    out.trained.assign(e.tokens.size(), 0);
    const auto mark = [&](int64_t begin, int64_t end, Turn* turn) {
        const size_t first = size_t(std::upper_bound(e.end.begin(), e.end.end(), begin) - e.end.begin());
        const size_t last = std::max(first,
                                     size_t(std::lower_bound(e.begin.begin(), e.begin.end(), end) - e.begin.begin()));
        if (begin >= end || first == last) return;
        std::fill(out.trained.begin() + int64_t(first), out.trained.begin() + int64_t(last), uint8_t(1));
        if (!turn) return;
        turn->first = turn->first < turn->last ? std::min(turn->first, int64_t(first)) : int64_t(first);
        turn->last = std::max(turn->last, int64_t(last));
    };
    if (full.marks_generation) {
        for (const RenderedTemplate::Span& s : full.generation) {
            const auto shared = [&](const Turn& t) {
                return t.assistant ? std::min(s.end, t.end) - std::max(s.begin, t.begin) : -1;
            };
            const auto best = std::max_element(out.turns.begin(), out.turns.end(),
                                               [&](const Turn& a, const Turn& b) { return shared(a) < shared(b); });
            mark(s.begin, s.end, best != out.turns.end() && shared(*best) > 0 ? &*best : nullptr);
        }
    } else {
        for (Turn& turn : out.turns) if (turn.assistant) mark(turn.begin, turn.end, &turn);
    }
    for (Turn& turn : out.turns)
        turn.trained = std::count(out.trained.begin() + turn.first, out.trained.begin() + turn.last, uint8_t(1));
    out.marked = full.marks_generation;
    out.read_keys = std::move(full.read_keys);
    out.read_variables = std::move(full.read_variables);
    out.text = std::move(full.text);
    out.tokens = std::move(e.tokens);
    return out;
}

Json to_json(std::span<const Message> chat) {
    Json messages{Json::Array()};
    for (const Message& m : chat) {
        Json message = Json().set("role", m.role).set("content", m.content);
        if (!m.more.empty()) {
            const Json more = Json::parse(m.more, "Message::more", {.depth = 64, .bytes = int64_t(64) << 20});
            for (const auto& [key, value] : more.as_object("Message::more")) message.set(key, value);
        }
        messages.push(std::move(message));
    }
    return messages;
}

Json variables_of(const RenderOptions& o) {
    constexpr Json::Limits limits{.depth = 64, .bytes = int64_t(64) << 20};
    Json variables;
    if (!o.variables.empty()) {
        variables = Json::parse(o.variables, "RenderOptions::variables", limits);
        variables.as_object("RenderOptions::variables");
    }
    if (o.tools.empty()) return variables;
    Json tools = Json::parse(o.tools, "RenderOptions::tools", limits);
    tools.as_array("RenderOptions::tools");
    return variables.set("tools", std::move(tools));
}

Rendered render_chat(const TokenizerImpl& tokenizer, std::span<const Message> chat, const RenderOptions& options) {
    const DialogueRenderer renderer(tokenizer, options.chat_template);
    const Dialogue dialogue{to_json(chat), variables_of(options)};
    if (options.reply_next) return renderer.reply(dialogue, options.prefill);
    if (!options.prefill.empty())
        fail(Errc::argument, "render: a prefill begins the next reply; set reply_next too");
    TrainingText text = renderer.train(dialogue);
    return {std::move(text.text), std::move(text.tokens), std::move(text.trained)};
}

}}  // namespace qlora
