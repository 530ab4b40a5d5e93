// form_speakers.cpp - dialogues in one text, the speakers named inside of it: HH-RLHF's "chosen" ("\n\nHuman: ...
// \n\nAssistant: ..."), and the "text" of OIG and chip2 ("<human>: ...\n<bot>: ..."). Of HH-RLHF's pair the chosen
// dialogue is trained on, as QLoRA did; the rejected one is named among what is not used.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace form_speakers_room {

struct Speakers {
    const char *key, *user, *assistant, *format;
};
constexpr Speakers known[] = {{"chosen", "\n\nHuman:", "\n\nAssistant:", "human/assistant text"},
                              {"text", "<human>:", "<bot>:", "human/bot text"}};

const Speakers* speakers_of(const RecordReader& r) {
    for (const Speakers& s : known) {
        if (!r.has_text(s.key)) continue;
        const std::string& text = r.record.find(s.key)->string();
        if (text.starts_with(s.user) && text.find(s.assistant) != text.npos) return &s;
    }
    return nullptr;
}

std::string trimmed(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\n";
    const size_t from = text.find_first_not_of(blanks);
    return from == text.npos ? std::string() : std::string(text.substr(from, text.find_last_not_of(blanks) + 1 - from));
}

}    // namespace form_speakers_room

bool fits_speakers(const RecordReader& r) { return form_speakers_room::speakers_of(r) != nullptr; }

std::vector<Example> read_speakers(RecordReader& r) {
    const form_speakers_room::Speakers& s = *form_speakers_room::speakers_of(r);
    const std::string text = r.string(s.key);
    const std::string_view user = s.user, assistant = s.assistant;
    Example e;
    e.format = s.format;
    bool asks = true;
    for (size_t at = user.size(); at < text.size();) {
        const size_t question = text.find(user, at), answer = text.find(assistant, at);
        const size_t end = std::min({question, answer, text.size()});
        const std::string said = form_speakers_room::trimmed(std::string_view(text).substr(at, end - at));
        if (!said.empty()) e.chat.add(asks ? "user" : "assistant", said);
        asks = question < answer;
        at = end + (asks ? user : assistant).size();
    }
    return {e};
}

}
}    // namespace qlora
