// records.cpp - the record formats of training data, detected and brought into one shape: a text, or a dialogue.
#include "src/base/file.h"
#include "src/run/dataset.h"

#include <algorithm>

namespace qlora::inline v0_1 {
namespace records_room {

std::string string_of(const Json& record, std::string_view key, const std::string& where) {
    const Json* value = record.find(key);
    if (!value || value->is_null()) return {};
    return value->as_string(str(where, ": ", key));
}

// The content of a message: a string, null, or a list of parts of which only text can be trained on.
std::string content_of(const Json& value, const std::string& where) {
    if (value.is_null()) return {};
    if (!value.is_array()) return value.as_string(str(where, ": content"));
    std::string text;
    for (const Json& part : value.array()) {
        const Json* kind = part.find("type");
        const Json* body = part.find("text");
        if (!body || (kind && kind->is_string() && kind->string() != "text"))
            fail(Errc::unsupported, where, ": content has a part of type ", kind && kind->is_string() ? kind->string() : "unknown", "; only text can be trained on");
        text += body->as_string(str(where, ": text"));
    }
    return text;
}

std::string role_of(std::string_view name, const std::string& where) {
    if (name == "human" || name == "user" || name == "prompter") return "user";
    if (name == "gpt" || name == "assistant" || name == "model" || name == "chatgpt" || name == "bing" || name == "bard") return "assistant";
    if (name == "function_call") return "assistant";
    if (name == "system" || name == "developer") return "system";
    if (name == "observation" || name == "tool" || name == "function" || name == "ipython") return "tool";
    fail(Errc::format, where, ": role \"", name, "\" is none of system, user (human), assistant (gpt, function_call), tool (observation)");
}

Json message(std::string role, std::string content) {
    return Json().set("role", std::move(role)).set("content", std::move(content));
}

// A list of messages with role and content, or with from and value.
Json read_messages(const Json& list, const char* role_key, const char* content_key, const std::string& where) {
    Json messages{Json::Array()};
    int64_t number = 0;
    for (const Json& item : list.as_array(where)) {
        const std::string at = str(where, "[", number++, "]");
        const Json* role = item.find(role_key);
        if (!role) fail(Errc::format, at, ": a message needs \"", role_key, "\" and \"", content_key, "\"");
        const std::string& name = role->as_string(str(at, ": ", role_key));
        const Json* content = item.find(content_key);
        const Json* calls = item.find("tool_calls");
        if (!content && !calls) fail(Errc::format, at, ": a message needs \"", content_key, "\"");
        Json m = message(role_of(name, at), content ? content_of(*content, at) : std::string());
        if (calls && calls->is_array() && !calls->array().empty()) m.set("tool_calls", *calls);
        if (const Json* id = item.find("name"); id && id->is_string()) m.set("name", *id);
        if (name == "function_call") m.set("function_call", true);     // the value is the call's JSON: see tool_calls() in dataset.cpp
        messages.push(std::move(m));
    }
    return messages;
}

void put_system_first(Json& messages, std::string system) {
    if (system.empty()) return;
    Json::Array& list = messages.array();
    if (!list.empty() && list[0].find("role")->string() == "system") return;
    list.insert(list.begin(), message("system", std::move(system)));
}

Json read_tools(const Json& record, const std::string& where) {
    const Json* tools = record.find("tools");
    if (!tools || tools->is_null()) return {};
    if (!tools->is_string()) return *tools;
    if (tools->string().empty()) return {};
    return Json::parse(tools->string(), str(where, ": tools"));        // LLaMA-Factory keeps the list as text
}

Example read_alpaca(const Json& record, const std::string& where) {
    Example e;
    e.format = "alpaca";
    e.plain = true;
    const std::string instruction = string_of(record, "instruction", where), input = string_of(record, "input", where);
    const std::string system = string_of(record, "system", where);
    e.completion = string_of(record, "output", where);
    if (const Json* history = record.find("history"); history && !history->is_null()) {
        for (const Json& turn : history->as_array(str(where, ": history"))) {
            if (!turn.is_array() || turn.array().size() != 2) fail(Errc::format, where, ": history must be a list of [question, answer] pairs");
            const std::string question = turn.array()[0].as_string(str(where, ": history")), answer = turn.array()[1].as_string(str(where, ": history"));
            e.messages.push(message("user", question));
            e.messages.push(message("assistant", answer));
            e.prompt += "### Instruction:\n" + question + "\n\n### Response:\n" + answer + "\n\n";
        }
    }
    e.messages.push(message("user", input.empty() ? instruction : instruction + "\n" + input));
    e.messages.push(message("assistant", e.completion));
    put_system_first(e.messages, system);
    const std::string preamble = input.empty()
        ? "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        : "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n";
    e.prompt = (system.empty() ? preamble : system + "\n\n") + e.prompt + "### Instruction:\n" + instruction + (input.empty() ? "" : "\n\n### Input:\n" + input) + "\n\n### Response:\n";
    return e;
}

Example read_prompt(const Json& record, const std::string& where) {
    Example e;
    e.format = "prompt/completion";
    const Json& prompt = *record.find("prompt");
    const Json* completion = record.find("completion");
    if (!completion) completion = record.find("response");
    if (prompt.is_array()) {
        e.messages = read_messages(prompt, "role", "content", str(where, ": prompt"));
        if (completion && completion->is_array()) {
            Json answers = read_messages(*completion, "role", "content", str(where, ": completion"));
            for (Json& m : answers.array()) e.messages.push(std::move(m));
        } else if (completion && !completion->is_null()) e.messages.push(message("assistant", completion->as_string(str(where, ": completion"))));
        return e;
    }
    e.plain = true;
    e.prompt = prompt.is_null() ? std::string() : prompt.as_string(str(where, ": prompt"));
    if (completion && !completion->is_null()) e.completion = completion->as_string(str(where, ": completion"));
    put_system_first(e.messages, string_of(record, "system", where));
    e.messages.push(message("user", e.prompt));
    e.messages.push(message("assistant", e.completion));
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
    Example e;
    if (record.find("chosen") || record.find("rejected"))
        fail(Errc::unsupported, where, ": a preference pair (chosen/rejected); training on preferences is not supported, keep the chosen answers as messages");
    if (const Json* list = record.find("messages")) {
        e.format = "messages";
        e.messages = records_room::read_messages(*list, "role", "content", str(where, ": messages"));
        e.tools = records_room::read_tools(record, where);
    } else if (const Json* turns = record.find("conversations")) {
        e.format = "sharegpt";
        const bool openai_keys = turns->is_array() && !turns->array().empty() && turns->array()[0].find("role");
        e.messages = records_room::read_messages(*turns, openai_keys ? "role" : "from", openai_keys ? "content" : "value", str(where, ": conversations"));
        records_room::put_system_first(e.messages, records_room::string_of(record, "system", where));
        e.tools = records_room::read_tools(record, where);
    } else if (record.find("instruction") && !record.find("instances")) {
        e = records_room::read_alpaca(record, where);
    } else if (record.find("prompt") && !record.find("text")) {
        e = records_room::read_prompt(record, where);
    } else if (const Json* text = record.find("text")) {
        e.format = "text";
        e.is_text = true;
        e.text = text->is_null() ? std::string() : text->as_string(str(where, ": text"));
    } else {
        fail(Errc::format, where, ": a record with the keys ", records_room::keys_of(record), " is none of the formats read: {messages}, {conversations}, "
            "{instruction, input, output}, {prompt, completion or response}, {text}");
    }
    return e;
}

std::string dataset_file(const std::string& path, const std::string& split) {
    if (!is_folder(path)) {
        if (!exists(path)) fail(Errc::io, "dataset ", path, ": no such file or folder");
        if (!split.empty() && split != "train") fail(Errc::argument, "dataset ", path, ": a split (\"", split, "\") can be chosen of a folder only; use Dataset::split()");
        for (const char* other : {".parquet", ".csv", ".tsv", ".arrow", ".gz", ".zst"})
            if (path.ends_with(other)) fail(Errc::unsupported, "dataset ", path, ": ", other, " is not read; convert it to .jsonl, one JSON object a line");
        return path;
    }
    std::vector<std::string> names{split.empty() ? "train" : split};
    if (split == "valid" || split == "validation") names = {"valid", "validation", "val", "dev", "eval"};
    for (const std::string& name : names)
        for (const char* suffix : {".jsonl", ".json", ".txt"})
            if (const std::string file = path + "/" + name + suffix; exists(file)) return file;
    fail(Errc::io, "dataset ", path, ": the folder has no ", names[0], ".jsonl (nor .json, .txt)");
}

std::vector<Record> split_records(std::string_view text, const std::string& path) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);        // Windows editors begin files with a byte-order mark
    std::vector<Record> records;
    int64_t line = 1;
    size_t at = 0;
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
    while (at < text.size() && blank(text[at])) line += text[at++] == '\n';
    if (at == text.size()) fail(Errc::format, "dataset ", path, ": the file is empty");
    if (text[at] != '[') {
        while (at < text.size()) {
            const size_t end = std::min(text.find('\n', at), text.size());
            const std::string_view content = text.substr(at, end - at);
            if (!std::all_of(content.begin(), content.end(), blank)) records.push_back({line, content});
            at = end + 1;
            ++line;
        }
        return records;
    }
    // An array: find the border of every element, so that each is parsed alone and errors name its line.
    ++at;
    while (true) {
        while (at < text.size() && blank(text[at])) line += text[at++] == '\n';
        if (at < text.size() && text[at] == ']' && records.empty()) return records;
        const size_t begin = at;
        const int64_t first_line = line;
        int64_t depth = 0;
        bool quoted = false;
        for (; at < text.size(); ++at) {
            const char c = text[at];
            if (c == '\n') ++line;
            if (quoted) {
                if (c == '\\') ++at;
                else if (c == '"') quoted = false;
            } else if (c == '"') quoted = true;
            else if (c == '{' || c == '[') ++depth;
            else if ((c == '}' || c == ']') && depth > 0) --depth;
            else if (depth == 0 && (c == ',' || c == ']')) break;
        }
        if (at >= text.size()) fail(Errc::format, "dataset ", path, ":", first_line, ": the array ends inside this record; the file is cut off");
        records.push_back({first_line, text.substr(begin, at - begin)});
        if (text[at++] == ']') break;
    }
    while (at < text.size() && blank(text[at])) line += text[at++] == '\n';
    if (at < text.size()) fail(Errc::format, "dataset ", path, ":", line, ": text after the end of the array");
    return records;
}

}  // namespace qlora
