// form_pair.cpp - a question and its answer under one of several pairs of names: strings, or lists of messages. A text
// with a label in words is a question with its answer; a label in numbers is left to the user to name.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace form_pair_room {

struct Pair {
    std::string_view prompt, completion;
};
constexpr Pair pairs[] = {{"prompt", "completion"}, {"prompt", "response"}, {"prompt", "output"},
                          {"prompt", "answer"},     {"question", "answer"}, {"question", "response"},
                          {"query", "response"},    {"query", "answer"},    {"input", "output"}};
constexpr Pair labelled{"text", "label"};

// A prompt alone is one without an answer.
const Pair* pair_of(const RecordReader& r) {
    if (r.has_text("text") && r.has_text("label")) return &labelled;
    if (r.has("text")) return nullptr;
    for (const Pair& p : pairs)
        if (r.has(p.prompt) && r.has(p.completion)) return &p;
    return r.has("prompt") ? pairs : nullptr;
}

}    // namespace form_pair_room

bool fits_pair(const RecordReader& r) { return form_pair_room::pair_of(r) != nullptr; }

std::vector<Example> read_pair(RecordReader& r) {
    const form_pair_room::Pair& names = *form_pair_room::pair_of(r);
    Example e;
    e.format = &names == &form_pair_room::labelled ? "text/label" : "prompt/completion";
    const Json* prompt = r.find(names.prompt);
    const Json* completion = r.find(names.completion);
    if (prompt && prompt->is_array()) {
        e.chat = read_messages(*prompt, "role", "content", r.at(names.prompt));
        if (completion && completion->is_array())
            e.chat.append(read_messages(*completion, "role", "content", r.at(names.completion)));
        else if (completion) e.chat.add("assistant", r.answer(names.completion));
        read_variables(r, e);
        return {e};
    }
    e.plain = true;
    e.prompt = r.string(names.prompt);
    e.completion = r.answer(names.completion);
    e.chat.add("user", e.prompt);
    e.chat.add("assistant", e.completion);
    e.chat.put_system_first(r.string("system"));
    return {e};
}

}
}    // namespace qlora
