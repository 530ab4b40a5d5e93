// dialogue.h - a dialogue as the tokens of a model: its chat template, and which of the tokens each message got.
//
// The loss mask comes from the template's {% generation %} blocks where it has them. Most have none; then it is what
// the template prints for a turn of the assistant, from the end of what it prints as generation prompt to the end mark
// (turns.cpp).
#pragma once
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

struct Dialogue {
    Json messages{Json::Array()};    // objects with role and content, and whatever other keys the row has
    Json variables;    // an object: tools, documents, chat_template_kwargs, ...; null = none
};

struct Turn {                                          // one message of the dialogue
    int64_t message = 0;                               // its index
    bool assistant = false;
    int64_t begin = 0, end = 0;    // bytes of the text that count for it; equal: the template prints nothing for it
    int64_t first = 0, last = 0;                       // its trained tokens lie in [first, last)
    int64_t trained = 0;                               // how many they are
};

struct TrainingText : Rendered {
    std::vector<Turn> turns;                           // one a message, in their order
    bool marked = false;    // the template's {% generation %} blocks say what is trained: they may leave turns out
    // What the template asked for, found or not: keys of messages, and variables by name. Sorted.
    std::vector<std::string> read_keys, read_variables;
};

class DialogueRenderer {                               // parses the template once; reply() and train() from any thread
public:
    // borrowed; chat_template: instead of the model's own, unless it is empty
    explicit DialogueRenderer(const TokenizerImpl&, std::string chat_template = {});
    // The dialogue with the assistant's next turn opened, and begun with `prefill`: what a reply continues. No spans
    // are computed, so nothing is refused for them.
    Rendered reply(const Dialogue&, std::string_view prefill = {}) const;
    // literal: what messages hold never becomes a control token
    TrainingText train(const Dialogue&, bool literal = true) const;
    bool own_template() const { return own_; }         // not a fallback
    // Does the template print system messages? If not, reply() and train() put each before the user message that
    // follows it.
    bool takes_system() const { return takes_system_; }
    bool knows(std::string_view variable) const { return source_.find(variable) != std::string::npos; }
private:
    RenderedTemplate print(const Json& messages, const Json& variables, bool reply_next) const;
    const TokenizerImpl& tokenizer_;
    std::string source_;
    bool probe_system() const;
    TrainingText train_printed(const Dialogue&, bool literal) const;
    bool own_ = false, takes_system_ = true;
    std::vector<std::string> end_marks_;               // texts that end a reply
    std::shared_ptr<const ChatTemplate> template_;
};

Json to_json(std::span<const Message>);                // Error{argument} where `more` is no JSON object
Json variables_of(const RenderOptions&);               // as Dialogue has them
bool is_assistant(const Json& message);
bool is_system(const Json& message);

}}  // namespace qlora
