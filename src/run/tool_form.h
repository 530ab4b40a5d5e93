// tool_form.h - the form in which a chat template takes tools and tool calls, found by printing a dialogue that has
// them.
#pragma once
#include "src/run/records.h"

namespace qlora { inline namespace QLORA_ABI {

struct ToolForm {
    bool calls = false;                                // it prints tool_calls; else they become text of the message
    bool text_arguments = false;    // it prints the arguments of a call as they come: they must be JSON text
    bool null_content = true;                          // a call without a text has the content null; else ""
    bool wrapped_tools = false;    // a tool must be {"type": "function", "function": {...}}, not the function alone
};

ToolForm tool_form_of(const DialogueRenderer&);
Json probe_tool(bool wrapped);                         // a tool to print a template with

// Brings the tool calls and tools of an example into that form. ids: calls without an id get one, and their results
// refer to it.
void apply_tool_form(Example&, const ToolForm&, bool ids);

}}  // namespace qlora
