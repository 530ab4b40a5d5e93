// form_preference.cpp - two answers of which people preferred one, {"prompt", "chosen", "rejected"}: the chosen one is
// trained on, as QLoRA did with HH-RLHF; the rejected one is named among what is not used. An answer is a text or a
// list of messages; a list may begin with the question, or the question stands beside it.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace form_preference_room {

const Json* question_of(RecordReader& r) {
    const Json* found = nullptr;
    for (const char* key : {"prompt", "question", "instruction", "input", "query"})
        if (!found && r.has(key)) found = r.find(key);
    return found;
}

bool asks(const Conversation& chat) {
    return std::any_of(chat.messages.array().begin(), chat.messages.array().end(),
                       [](const Json& m) { return m.find("role")->string() == "user"; });
}

}    // namespace form_preference_room

bool fits_preference(const RecordReader& r) { return r.has("chosen"); }

std::vector<Example> read_preference(RecordReader& r) {
    const Json* question = form_preference_room::question_of(r);
    const Json* chosen = r.find("chosen");
    if (!chosen) fail(Errc::format, r.where, ": chosen is null; the record has no answer to train on");
    Example e;
    e.format = "chosen of pairs";
    if (question && question->is_array()) e.chat = read_messages(*question, "role", "content", r.at("prompt"));
    else if (question) e.chat.add("user", question->as_string(r.at("prompt")));
    if (chosen->is_array()) {
        Conversation answer = read_messages(*chosen, "role", "content", r.at("chosen"));
        if (form_preference_room::asks(answer)) e.chat = std::move(answer);    // the whole dialogue
        else e.chat.append(std::move(answer));
    } else {
        e.chat.add("assistant", r.answer("chosen"));
        e.plain = question && question->is_string();
        if (e.plain) e.prompt = question->string(), e.completion = r.answer("chosen");
    }
    if (!form_preference_room::asks(e.chat))
        fail(Errc::format, r.where,
             ": chosen is an answer without a question; the record needs prompt, or messages of the "
             "user in chosen");
    e.chat.put_system_first(r.string("system"));
    if (!e.plain) read_variables(r, e);
    return {e};
}

}
}    // namespace qlora
