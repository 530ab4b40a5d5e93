// form_dialogue.cpp - {"messages": [{"role", "content"}]}, {"conversations": [{"from", "value"}]}: dialogues, with what
// their template gets beside the messages. A list may be stored as JSON text, as tables do.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {

void read_variables(RecordReader& r, Example& e) {
    Json tools;
    if (const Json* list = r.find("tools")) tools = decoded(*list, r.at("tools"));
    else if (const Json* old = r.find("functions")) {    // OpenAI's older spelling of the same
        tools = Json(Json::Array());
        const Json functions = decoded(*old, r.at("functions"));
        for (const Json& function : functions.as_array(r.at("functions")))
            tools.push(Json().set("type", "function").set("function", function));
    }
    if (!tools.is_null() && !(tools.is_array() && tools.array().empty())) e.variables.set("tools", std::move(tools));
    if (const Json* documents = r.find("documents"))
        e.variables.set("documents", decoded(*documents, r.at("documents")));
    if (const Json* kwargs = r.find("chat_template_kwargs")) {
        const Json values = decoded(*kwargs, r.at("chat_template_kwargs"));
        if (values.is_null()) return;
        for (const auto& [name, value] : values.as_object(r.at("chat_template_kwargs"))) {
            if (name == "messages" || name == "add_generation_prompt" || name == "bos_token" || name == "eos_token")
                fail(Errc::format, r.where, ": chat_template_kwargs may not set ", name,
                     ", which comes from the row and the model");
            e.variables.set(name, value);
        }
    }
}

std::vector<Example> read_dialogue_row(RecordReader& r) {
    const char* key = r.has("messages") ? "messages" : r.has("conversations") ? "conversations" : "conversation";
    r.find(key);
    const Json list = decoded(*r.record.find(key), r.at(key));
    Example e;
    const Json* first = list.is_array() && !list.array().empty() ? &list.array()[0] : nullptr;
    e.format = std::string_view(key) == "messages" ? "messages" : "sharegpt";
    if (first && !first->find("from") && !first->find("role") && first->find("human") && first->find("assistant")) {
        // Firefly's: a question and its answer together
        for (const Json& pair : list.array())
            for (const char* role : {"human", "assistant"}) {
                const Json* text = pair.find(role);
                e.chat.add(role[0] == 'h' ? "user" : "assistant", text ? text->as_string(r.at(key)) : "");
            }
    } else {
        const bool named = first && first->find("from");
        e.chat = read_messages(list, named ? "from" : "role", named ? "value" : "content", r.at(key));
    }
    e.chat.put_system_first(r.string("system"));
    read_variables(r, e);
    return {e};
}

}
}    // namespace qlora
