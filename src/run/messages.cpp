// messages.cpp - the messages of a record: roles and contents in one spelling, tool calls in one form, masks; all other
// keys as they are.
//
// A tool call becomes OpenAI's present form, {"type": "function", "function": {"name", "arguments"}}, arguments an
// object: the older function_call, ShareGPT's messages from "function_call" and arguments stored as JSON text are
// brought into it.
#include "src/run/records.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace messages_room {

// One part of a content that is a list: a string, or an object with a text. What else there may be cannot be trained
// on.
const std::string& text_of_part(const Json& part, const std::string& where) {
    if (part.is_string()) return part.string();
    const Json* type = part.find("type");
    const std::string kind = type && type->is_string() ? type->string() : "text";
    const Json* body = part.find("text");
    if (!body) body = part.find("value");
    if (body && body->is_object()) body = body->find("value");         // as assistants' threads have it
    if (body && body->is_string() && (kind == "text" || kind == "input_text" || kind == "output_text"))
        return body->string();
    for (const char* medium : {"image", "audio", "video"})
        if (kind.find(medium) != kind.npos || part.find(medium) || part.find(str(medium, "_url")))
            fail(Errc::unsupported, where, ": content holds ", medium, " (", type ? kind : part.dump(),
                 "); only text can be trained on");
    fail(Errc::unsupported, where, ": content has a part of type ", kind,
         " without a text; only text can be trained on");
}

// The content of a message: a string, null, a part, or a list of parts.
Json content_of(const Json& value, const std::string& where) {
    if (value.is_null()) return value;
    if (value.is_object()) return text_of_part(value, where);
    if (!value.is_array()) return value.as_string(str(where, ": content"));
    std::string text;
    for (const Json& part : value.array()) text += text_of_part(part, where);
    return text;
}

std::string role_of(std::string_view name, const std::string& where) {
    if (name == "human" || name == "user" || name == "prompter") return "user";
    if (name == "gpt" || name == "assistant" || name == "model" || name == "chatgpt" || name == "bing" ||
        name == "bard")
        return "assistant";
    if (name == "function_call") return "assistant";
    if (name == "system" || name == "developer") return "system";
    if (name == "observation" || name == "tool" || name == "function" || name == "ipython") return "tool";
    fail(Errc::format, where, ": role \"", name,
         "\" is none of system, user (human), assistant (gpt, function_call), tool (observation)");
}

// Does the row exclude this message from the loss, or include it? Nothing where it says neither.
std::optional<bool> mask_of(const std::string& key, const Json& value, const std::string& where) {
    const bool negative = key == "masked";             // the others say what is trained
    if (!negative && key != "weight" && key != "train" && key != "loss") return {};
    if (!value.is_bool() && !(value.is_number() && (value.number() == 0 || value.number() == 1)))
        fail(Errc::unsupported, where, ": ", key, " is ", value.dump(),
             "; a message is trained on or it is not: expected ", key == "weight" ? "0 or 1" : "true or false");
    const bool on = value.is_bool() ? value.boolean() : value.number() != 0;
    return negative ? on : !on;
}

// {"name", "arguments"} -> {"type", "function"}; a call in that form already keeps its other keys (id, index).
Json call_of(const Json& call, MessageFacts& facts, const std::string& where) {
    if (!call.is_object())
        fail(Errc::format, where, ": a tool call must be an object with a name and arguments, is ", call.dump());
    const Json* inner = call.find("function");
    Json function = inner && inner->is_object() ? *inner : Json(), out;
    if (!function.is_object()) {
        for (const Json::Member& m : call.object())
            (m.first == "id" || m.first == "type" || m.first == "index" ? out : function).set(m.first, m.second);
        if (inner && inner->is_string()) function.set("name", *inner);
    } else {
        out = call;
    }
    if (!function.find("name")) fail(Errc::format, where, ": a tool call without a name");
    facts.arguments.emplace_back();
    if (const Json* arguments = function.find("arguments"); arguments && arguments->is_string()) {
        try {
            Json object = Json::parse(arguments->string(), "arguments");
            if (object.is_object()) {
                facts.arguments.back() = arguments->string();
                function.set("arguments", std::move(object));
            }
        } catch (const Error&) {                       // no JSON: the text is the argument
        }
    }
    if (!out.find("type")) out = Json().set("type", "function");
    if (call.find("id")) out.set("id", *call.find("id"));
    return out.set("function", std::move(function));
}

Json calls_of(const Json& value, MessageFacts& facts, const std::string& where) {
    Json calls{Json::Array()};
    if (value.is_array()) for (const Json& call : value.array()) calls.push(call_of(call, facts, where));
    else calls.push(call_of(value, facts, where));
    return calls;
}

// ShareGPT's call is the text of a message. Where that is no JSON it stays the text that it is.
void take_call_text(Json& message, MessageFacts& facts, const std::string& where) {
    const std::string text = message.find("content")->is_string() ? message.find("content")->string() : std::string();
    try {
        message.set("tool_calls", calls_of(Json::parse(text, where), facts, where)).set("content", nullptr);
        facts.call_text = text;
    } catch (const Error&) {
    }
}

struct Reader {
    const char *role_key, *content_key;

    Json read(const Json& item, Conversation& chat, const std::string& at) const {
        MessageFacts& facts = chat.facts.back();
        const Json* role = item.find(role_key);
        if (!role) fail(Errc::format, at, ": a message needs \"", role_key, "\" and \"", content_key, "\"");
        const std::string& name = role->as_string(str(at, ": ", role_key));
        const Json* content = item.find(content_key);
        Json m = Json().set("role", role_of(name, at)).set("content", content ? content_of(*content, at) : Json());
        for (const Json::Member& member : item.object()) {
            const auto& [key, value] = member;
            // tables write null where a row has no such key
            if (key == role_key || key == content_key || value.is_null()) continue;
            if (const std::optional<bool> masked = mask_of(key, value, at)) {
                facts.masked |= *masked;
                if (!*masked && m.find("role")->string() != "assistant")
                    chat.unused.push_back(key + " of a message that is not the assistant's");
            } else if (key == "tool_calls") {
                const Json calls = decoded(value, str(at, ": tool_calls"));
                if (!calls.is_array() || !calls.array().empty())
                    m.set(key, calls_of(calls, facts, str(at, ": tool_calls")));
            } else if (key == "function_call") {
                if (!item.find("tool_calls"))
                    m.set("tool_calls",
                          calls_of(decoded(value, str(at, ": function_call")), facts, str(at, ": function_call")));
            } else if (key != "role" && key != "content") m.set(key, value);
        }
        if (!content && !m.find("tool_calls")) fail(Errc::format, at, ": a message needs \"", content_key, "\"");
        if (name == "function_call") take_call_text(m, facts, at);
        // A call may come without a text; nothing else may.
        if (m.find("content")->is_null() && !m.find("tool_calls")) m.set("content", "");
        return m;
    }
};

}  // namespace messages_room

Json decoded(const Json& value, const std::string& where) {
    if (!value.is_string()) return value;
    return value.string().empty() ? Json() : Json::parse(value.string(), where);
}

Conversation read_messages(const Json& list, const char* role_key, const char* content_key, const std::string& where) {
    Conversation chat;
    const messages_room::Reader reader{role_key, content_key};
    int64_t number = 0;
    for (const Json& item : list.as_array(where)) {
        chat.facts.emplace_back();
        chat.messages.push(reader.read(item, chat, str(where, "[", number++, "]")));
    }
    return chat;
}

void Conversation::append(Conversation more) {
    for (Json& m : more.messages.array()) messages.push(std::move(m));
    facts.insert(facts.end(), more.facts.begin(), more.facts.end());
    unused.insert(unused.end(), more.unused.begin(), more.unused.end());
}

void Conversation::put_system_first(std::string system) {
    if (system.empty()) return;
    Json::Array& list = messages.array();
    if (!list.empty() && list[0].find("role")->string() == "system") return;
    list.insert(list.begin(), Json().set("role", "system").set("content", std::move(system)));
    facts.insert(facts.begin(), MessageFacts{});
}

}}  // namespace qlora
