// chat_template.h - the subset of Jinja that chat templates use, interpreted with limits on depth, steps and output.
#pragma once
#include "src/base/json.h"

namespace qlora { inline namespace QLORA_ABI {

struct RenderedTemplate {
    std::string text;
    struct Span { int64_t begin, end, message = -1; }; // byte ranges of text; message: the index of one, -1 = none
    std::vector<Span> generation;                      // what {% generation %} blocks printed
    std::vector<Span> content;    // what came from strings of the row, in order and apart: never read as control tokens
    std::vector<Span> from;                            // of these, what came from messages: which one
    // what was printed while a message was a loop's current one: which one (jinja_origin.h)
    std::vector<Span> during;
    bool marks_generation = false;                     // the template has a {% generation %} block
    // keys of messages and variables it asked for, found or not; sorted
    std::vector<std::string> read_keys, read_variables;
};

struct TemplateLimits { int64_t depth = 200, steps = 10'000'000, output = int64_t(64) << 20; };

class ChatTemplate {                                   // parsed once, rendered often, from any thread
public:
    static std::shared_ptr<const ChatTemplate> parse(std::string_view source, std::string_view where);
    // variables: an object: messages, bos_token, eos_token, add_generation_prompt, tools, ... Strings in all of them
    // but the *_token ones count as content.
    virtual RenderedTemplate render(const Json& variables, const TemplateLimits& = {}) const = 0;
    virtual ~ChatTemplate() = default;
};

// The template to use when a model ships none: ChatML if it has "<|im_start|>", Llama-3 headers, Llama-2 [INST],
// Zephyr, or plain text.
std::string fallback_chat_template(const std::function<bool(std::string_view token)>& has_token);

}}  // namespace qlora
