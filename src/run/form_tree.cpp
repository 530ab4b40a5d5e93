// form_tree.cpp - OASST's trees of messages, {"prompt": {"text", "role", "replies": [{...}]}}: the dialogue of the
// replies that people ranked first at every level, which is what QLoRA was trained on.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace form_tree_room {

constexpr int most_levels = 1000;    // the parser allows fewer

bool says(const Json& message, const char* key, bool value) {
    const Json* v = message.find(key);
    return v && v->is_bool() && v->boolean() == value;
}

// The reply of the lowest rank; those without one are behind those with one, in the order of the file.
const Json* best_reply(const Json& message) {
    const Json* replies = message.find("replies");
    const Json* best = nullptr;
    int64_t least = 0;
    if (!replies) return nullptr;
    for (const Json& reply : replies->array()) {
        if (says(reply, "deleted", true) || says(reply, "review_result", false)) continue;
        const Json* rank = reply.find("rank");
        const int64_t place = rank && rank->is_number() ? int64_t(rank->number()) : INT64_MAX;
        if (!best || place < least) best = &reply, least = place;
    }
    return best;
}

}    // namespace form_tree_room

bool fits_tree(const RecordReader& r) {
    const Json* prompt = r.record.find("prompt");
    return prompt && prompt->find("text") && prompt->find("replies");
}

std::vector<Example> read_tree(RecordReader& r) {
    for (const char* of_the_tree : {"message_tree_id", "tree_state"}) (void)r.find(of_the_tree);
    Example e;
    e.format = "oasst tree";
    const Json* message = r.find("prompt");
    for (int level = 0; message && level < form_tree_room::most_levels; ++level) {
        const std::string where = r.at("prompt");
        RecordReader inner{*message, where};
        const std::string role = inner.string("role");
        if (role != "prompter" && role != "assistant")
            fail(Errc::format, where, ": role \"", role, "\" of a message of a tree is neither prompter nor assistant");
        e.chat.add(role == "assistant" ? role : "user", inner.string("text"));
        message = form_tree_room::best_reply(*message);
    }
    Json::Array& said = e.chat.messages.array();
    if (said.size() > 1 && said.back().find("role")->string() == "user") {    // nobody answered it
        said.pop_back();
        e.chat.facts.pop_back();
    }
    return {e};
}

}
}    // namespace qlora
