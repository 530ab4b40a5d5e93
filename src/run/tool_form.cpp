// tool_form.cpp - see tool_form.h.
//
// Most templates write `arguments | tojson` and want an object; some print the arguments as they come, and an object
// would appear as Python prints it. Some print a call only where the content is null, some print null as "None".
// Templates do not declare any of this, so each form is printed once, and the first that shows the call and its
// arguments best is used.
#include "src/run/tool_form.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace tool_form_room {

constexpr std::string_view name = "qlora_probe", key = "qlora_key", value = "qlora_value";

std::string printed(const DialogueRenderer& renderer, const Dialogue& dialogue) {
    try {
        return renderer.reply(dialogue).text;
    } catch (const Error&) {                           // refused: so this is not the form
        return {};
    }
}

std::string printed_call(const DialogueRenderer& renderer, bool text_arguments, bool null_content) {
    const Json arguments = Json().set(std::string(key), value);
    const Json function =
        Json().set("name", name).set("arguments", text_arguments ? Json(arguments.dump()) : arguments);
    const Json call = Json().set("type", "function").set("id", "probe0001").set("function", function);
    Dialogue d;
    d.messages.push(Json().set("role", "user").set("content", "question"));
    d.messages.push(Json()
                        .set("role", "assistant")
                        .set("content", null_content ? Json() : Json(""))
                        .set("tool_calls", Json().push(call)));
    d.messages.push(
        Json().set("role", "tool").set("content", "result").set("name", name).set("tool_call_id", "probe0001"));
    d.messages.push(Json().set("role", "assistant").set("content", "answer"));
    d.variables.set("tools", Json().push(probe_tool(true)));
    return printed(renderer, d);
}

// 0: the call is not printed at all.
int score(const std::string& text) {
    const auto holds = [&](std::string_view part) { return text.find(part) != text.npos; };
    const size_t last = text.rfind(name);              // the tool's description names it too, and its result
    if (last == text.npos || !holds(value)) return 0;
    const bool as_python = holds(str("'", key, "'")), twice = holds(str("\\\"", key));
    return 4 + (as_python || twice ? 0 : 2) + (holds("None") ? 0 : 1);
}

std::string text_of_call(const Json& call) {
    return str("<tool_call>\n", call.find("function")->dump(), "\n</tool_call>");
}

}  // namespace tool_form_room

Json probe_tool(bool wrapped) {
    const Json none =
        Json().set("type", "object").set("properties", Json(Json::Object())).set("required", Json(Json::Array()));
    const Json function = Json().set("name", tool_form_room::name).set("description", "probe").set("parameters", none);
    return wrapped ? Json().set("type", "function").set("function", function) : function;
}

ToolForm tool_form_of(const DialogueRenderer& renderer) {
    ToolForm best;
    int most = 0;
    for (const bool text_arguments : {false, true})
        for (const bool null_content : {true, false}) {
            const int now = tool_form_room::score(tool_form_room::printed_call(renderer, text_arguments, null_content));
            if (now > most) {
                best = {true, text_arguments, null_content, false};
                most = now;
            }
        }
    const auto shows = [&](bool wrapped) {
        Dialogue d;
        d.messages.push(Json().set("role", "user").set("content", "question"));
        d.variables.set("tools", Json().push(probe_tool(wrapped)));
        return tool_form_room::printed(renderer, d).find(tool_form_room::name) != std::string::npos;
    };
    best.wrapped_tools = !shows(false) && shows(true);
    return best;
}

void apply_tool_form(Example& e, const ToolForm& form, bool ids) {
    int64_t number = 0;
    std::vector<std::string> open;                     // ids of the calls that await their results
    for (size_t i = 0; i < e.chat.messages.array().size(); ++i) {
        Json& m = e.chat.messages.array()[i];
        const MessageFacts& facts = e.chat.facts[i];
        if (ids && m.find("role")->string() == "tool" && !m.find("tool_call_id") && !open.empty()) {
            m.set("tool_call_id", open.front());
            open.erase(open.begin());
        }
        const Json* listed = m.find("tool_calls");
        if (!listed) continue;
        Json calls = *listed;
        const Json* content = m.find("content");
        std::string text = content->is_string() ? content->string() : std::string();
        if (!form.calls) {
            if (!facts.call_text.empty()) text = facts.call_text;
            else
                for (const Json& call : calls.array())
                    text += (text.empty() ? "" : "\n") + tool_form_room::text_of_call(call);
            std::erase_if(m.object(), [](const Json::Member& member) { return member.first == "tool_calls"; });
            m.set("content", std::move(text));
            continue;
        }
        open.clear();
        for (size_t c = 0; c < calls.array().size(); ++c) {
            Json& call = calls.array()[c];
            Json function = *call.find("function");
            if (const Json* arguments = function.find("arguments");
                form.text_arguments && arguments && !arguments->is_string()) {
                const bool kept = c < facts.arguments.size() && !facts.arguments[c].empty();
                function.set("arguments", kept ? facts.arguments[c] : arguments->dump());
                call.set("function", std::move(function));
            }
            if (ids && !call.find("id")) {             // nine letters and digits, as Mistral's templates demand
                std::string digits = std::to_string(++number);
                call.set("id", "call" + std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits);
            }
            if (const Json* id = call.find("id"); id && id->is_string()) open.push_back(id->string());
        }
        if (text.empty()) m.set("content", form.null_content ? Json() : Json(""));
        m.set("tool_calls", std::move(calls));
    }
    const Json* tools = e.variables.find("tools");
    if (!tools || !tools->is_array() || !form.wrapped_tools) return;
    Json wrapped{Json::Array()};
    for (const Json& tool : tools->array())
        wrapped.push(tool.is_object() && !tool.find("function") && tool.find("name")
                         ? Json().set("type", "function").set("function", tool)
                         : tool);
    e.variables.set("tools", std::move(wrapped));
}

}}  // namespace qlora
