// form_instruction.cpp - Alpaca's {"instruction", "input", "output"}, and self-instruct's {"instruction", "instances":
// [{"input", "output"}]}: the same with several inputs, each an example of its own.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace form_instruction_room {

struct Instruction {
    std::string system, instruction, input, output;
    std::vector<std::pair<std::string, std::string>> before = {};    // earlier questions and their answers
};

Example as_example(const Instruction& i) {
    Example e;
    e.format = "alpaca";
    e.plain = true;
    e.completion = i.output;
    for (const auto& [question, answer] : i.before) {
        e.chat.add("user", question);
        e.chat.add("assistant", answer);
        e.prompt += "### Instruction:\n" + question + "\n\n### Response:\n" + answer + "\n\n";
    }
    e.chat.add("user", i.input.empty() ? i.instruction : i.instruction + "\n" + i.input);
    e.chat.add("assistant", e.completion);
    e.chat.put_system_first(i.system);
    const std::string preamble =
        i.input.empty()
            ? "Below is an instruction that describes a task. Write a response that appropriately completes the "
              "request.\n\n"
            : "Below is an instruction that describes a task, paired with an input that provides further context. "
              "Write a response that appropriately completes the request.\n\n";
    e.prompt = (i.system.empty() ? preamble : i.system + "\n\n") + e.prompt + "### Instruction:\n" + i.instruction +
               (i.input.empty() ? "" : "\n\n### Input:\n" + i.input) + "\n\n### Response:\n";
    return e;
}

}    // namespace form_instruction_room

std::vector<Example> read_alpaca(RecordReader& r) {
    form_instruction_room::Instruction i{r.string("system"), r.string("instruction"), r.string("input"),
                                         r.answer(r.has("output") || !r.has("response") ? "output" : "response")};
    if (const Json* history = r.find("history")) {
        for (const Json& turn : history->as_array(r.at("history"))) {
            if (!turn.is_array() || turn.array().size() != 2)
                fail(Errc::format, r.where, ": history must be a list of [question, answer] pairs");
            i.before.emplace_back(turn.array()[0].as_string(r.at("history")),
                                  turn.array()[1].as_string(r.at("history")));
        }
    }
    return {form_instruction_room::as_example(i)};
}

// Unnatural Instructions has the whole question in each instance, as "instruction_with_input".
std::vector<Example> read_instances(RecordReader& r) {
    const std::string instruction = r.string("instruction");
    const Json* instances = r.find("instances");
    if (!instances) fail(Errc::format, r.where, ": instances is null; a record needs at least one");
    std::vector<Example> out;
    for (const Json& instance : instances->as_array(r.at("instances"))) {
        const std::string where = str(r.where, ": instances[", out.size(), "]");
        RecordReader inner{instance, where};
        const std::string whole = inner.string("instruction_with_input"), input = inner.string("input");
        out.push_back(form_instruction_room::as_example(
            {{}, whole.empty() ? instruction : whole, whole.empty() ? input : std::string(), inner.answer("output")}));
    }
    if (out.empty()) fail(Errc::format, r.where, ": instances is empty; a record needs at least one");
    return out;
}

}
}    // namespace qlora
