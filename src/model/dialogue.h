// dialogue.h - a dialogue as the tokens of a model: its chat template, and which of the tokens the assistant speaks.
//
// The loss mask comes from the template's {% generation %} blocks where it has them. Most have none; then an assistant's turn
// begins where the template, printed for the messages before it, opens the reply, and ends with the first end-of-reply token.
#pragma once
#include "src/model/model.h"

namespace qlora::inline v0_1 {

class DialogueRenderer {                               // parses the template once; render() from any thread
public:
    explicit DialogueRenderer(const TokenizerImpl&);   // borrowed
    // messages: an array of objects with role and content (and tool_calls where the template knows them); tools: an array or null.
    Rendered render(const Json& messages, const Json& tools, bool reply_next) const;
    bool own_template() const { return !tokenizer_.chat_template.empty(); }    // not a fallback
    bool knows(std::string_view variable) const { return source_.find(variable) != std::string::npos; }
private:
    RenderedTemplate print(const Json& messages, const Json& tools, bool reply_next) const;
    std::vector<RenderedTemplate::Span> assistant_spans(const Json& messages, const Json& tools, const RenderedTemplate& full) const;
    const TokenizerImpl& tokenizer_;
    std::string source_;
    std::shared_ptr<const ChatTemplate> template_;
};

Json to_json(std::span<const Message>);

}  // namespace qlora
