// records.cpp - the record formats of training data, detected and brought into one shape: a text, or a dialogue.
#include "src/run/records.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace records_room {

// One record. Every key that a format reads is asked for by name; what is left over at the end is named to the user.
struct Reader {
    const Json& record;
    const std::string& where;
    std::vector<std::string_view> asked = {};

    const Json* find(std::string_view key) {           // null where the record has null, too
        const Json* value = record.find(key);
        asked.push_back(key);
        return value && !value->is_null() ? value : nullptr;
    }
    std::string string(std::string_view key) {
        const Json* value = find(key);
        return value ? value->as_string(str(where, ": ", key)) : std::string();
    }
    std::string at(std::string_view key) const { return str(where, ": ", key); }

    std::vector<std::string> unused() const {
        std::vector<std::string> keys;
        for (const auto& [key, value] : record.object()) {
            const bool empty = value.is_null() || (value.is_string() && value.string().empty()) ||
                               (value.is_array() && value.array().empty());
            if (!empty && std::find(asked.begin(), asked.end(), key) == asked.end()) keys.push_back(key);
        }
        return keys;
    }
};

// What a dialogue's template gets beside the messages.
void read_variables(Reader& r, Example& e) {
    Json tools;
    if (const Json* list = r.find("tools")) tools = decoded(*list, r.at("tools"));
    else if (const Json* old = r.find("functions")) {  // OpenAI's older spelling of the same
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

Example read_alpaca(Reader& r) {
    Example e;
    e.format = "alpaca";
    e.plain = true;
    const std::string instruction = r.string("instruction"), input = r.string("input"), system = r.string("system");
    e.completion = r.string("output");
    if (const Json* history = r.find("history")) {
        for (const Json& turn : history->as_array(r.at("history"))) {
            if (!turn.is_array() || turn.array().size() != 2)
                fail(Errc::format, r.where, ": history must be a list of [question, answer] pairs");
            const std::string question = turn.array()[0].as_string(r.at("history")),
                              answer = turn.array()[1].as_string(r.at("history"));
            e.chat.add("user", question);
            e.chat.add("assistant", answer);
            e.prompt += "### Instruction:\n" + question + "\n\n### Response:\n" + answer + "\n\n";
        }
    }
    e.chat.add("user", input.empty() ? instruction : instruction + "\n" + input);
    e.chat.add("assistant", e.completion);
    e.chat.put_system_first(system);
    const std::string preamble =
        input.empty()
            ? "Below is an instruction that describes a task. Write a response that appropriately completes the "
              "request.\n\n"
            : "Below is an instruction that describes a task, paired with an input that provides further context. "
              "Write a response that appropriately completes the request.\n\n";
    e.prompt = (system.empty() ? preamble : system + "\n\n") + e.prompt + "### Instruction:\n" + instruction +
               (input.empty() ? "" : "\n\n### Input:\n" + input) + "\n\n### Response:\n";
    return e;
}

struct Pair { std::string_view prompt, completion; };
constexpr Pair pairs[] = {{"prompt", "completion"},
                          {"prompt", "response"},
                          {"question", "answer"},
                          {"query", "response"},
                          {"input", "output"}};

// The names that a record has its question and its answer under; a prompt alone is one without an answer.
const Pair* pair_of(const Json& record) {
    for (const Pair& p : pairs) if (record.find(p.prompt) && record.find(p.completion)) return &p;
    return record.find("prompt") ? pairs : nullptr;
}

Example read_prompt(Reader& r, const Pair& names) {
    Example e;
    e.format = "prompt/completion";
    const Json* prompt = r.find(names.prompt);
    const Json* completion = r.find(names.completion);
    if (prompt && prompt->is_array()) {
        e.chat = read_messages(*prompt, "role", "content", r.at(names.prompt));
        if (completion && completion->is_array()) {
            Conversation answers = read_messages(*completion, "role", "content", r.at(names.completion));
            for (Json& m : answers.messages.array()) e.chat.messages.push(std::move(m));
            e.chat.facts.insert(e.chat.facts.end(), answers.facts.begin(), answers.facts.end());
        } else if (completion) e.chat.add("assistant", completion->as_string(r.at(names.completion)));
        read_variables(r, e);
        return e;
    }
    e.plain = true;
    e.prompt = r.string(names.prompt);
    if (completion) e.completion = completion->as_string(r.at(names.completion));
    e.chat.add("user", e.prompt);
    e.chat.add("assistant", e.completion);
    e.chat.put_system_first(r.string("system"));
    return e;
}

Example read_dialogue(Reader& r, const Json& list, std::string_view key) {
    Example e;
    const bool named = list.is_array() && !list.array().empty() && list.array()[0].find("from");
    e.format = key == "messages" ? "messages" : "sharegpt";
    e.chat = read_messages(list, named ? "from" : "role", named ? "value" : "content", r.at(key));
    e.chat.put_system_first(r.string("system"));
    read_variables(r, e);
    return e;
}

std::string keys_of(const Json& record) {
    std::string keys;
    for (const Json::Member& m : record.object()) keys += (keys.empty() ? "" : ", ") + m.first;
    return keys;
}

}  // namespace records_room

Example read_example(const Json& record, const std::string& where) {
    if (!record.is_object()) fail(Errc::format, where, ": a record must be a JSON object");
    records_room::Reader r{record, where};
    Example e;
    if (record.find("chosen") || record.find("rejected"))
        fail(Errc::unsupported, where,
             ": a preference pair (chosen/rejected); training on preferences is not supported, keep the chosen answers "
             "as messages");
    if (const Json* list = record.find("messages")) {
        r.find("messages");
        e = records_room::read_dialogue(r, *list, "messages");
    } else if (record.find("conversations") || record.find("conversation")) {
        const char* key = record.find("conversations") ? "conversations" : "conversation";
        r.find(key);
        e = records_room::read_dialogue(r, *record.find(key), key);
    } else if (record.find("instruction") && !record.find("instances")) {
        e = records_room::read_alpaca(r);
    } else if (const records_room::Pair* names = records_room::pair_of(record); names && !record.find("text")) {
        e = records_room::read_prompt(r, *names);
    } else if (record.find("text")) {
        e.format = "text";
        e.is_text = true;
        e.text = r.string("text");
    } else {
        fail(Errc::format, where, ": a record with the keys ", records_room::keys_of(record),
             " is none of the formats read: {messages}, {conversations}, "
             "{instruction, input, output}, {prompt, completion or response}, {question, answer}, {query, response}, "
             "{input, output}, {text}");
    }
    e.unused = r.unused();
    e.unused.insert(e.unused.end(), e.chat.unused.begin(), e.chat.unused.end());
    return e;
}

}}  // namespace qlora
