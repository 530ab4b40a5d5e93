// commands.cpp - a prompt, and what can be typed there beside questions.
#include "examples/chat/chat.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"

#include <cstdio>
#include <sstream>

namespace program {

using qlora::Json;
using qlora::Message;

static const char* const help_text =
    "  /help              this text\n"
    "  /clear             forget the dialogue (the system text stays)\n"
    "  /regen             answer the last question again, differently\n"
    "  /undo              take the last question and its answer back\n"
    "  /system [TEXT]     set the system text; without TEXT show it\n"
    "  /prefill [TEXT]    begin every answer with TEXT; without it no longer\n"
    "  /set NAME VALUE    temp, top-k, top-p, min-p, repeat-penalty, max-tokens, seed; without a name show them\n"
    "  /save FILE         write the dialogue as one JSON line, in the form that finetune reads\n"
    "  /load FILE         read such a dialogue and go on with it\n"
    "  /stats             speed and context of the last answer\n"
    "  /exit              leave (also Ctrl-D, or Ctrl-C twice)\n"
    "  Ctrl-C stops an answer. Ctrl-R searches what was asked before. A paste of several lines is one question;\n"
    "  Alt-Enter, or \\ at the end of a line, goes on in a new one; \"\"\" opens and closes a block of lines.\n";

int Chat::once(const std::string& question) {
    answer(question);
    return interrupted() ? 128 + interrupted() : 0;
}

int Chat::converse() {
    bool leaving = false;                              // Ctrl-C at an empty prompt: a second one leaves
    int status = 0;
    while (true) {
        std::string text;
        const auto result = editor_.read("> ", text);
        if (result == LineEditor::Result::end || (!editor_.interactive() && interrupted()) || std::ferror(stdout))
            break;
        if (result == LineEditor::Result::cancelled) {
            if (leaving) break;
            leaving = true;
            note("(Ctrl-C again, Ctrl-D or /exit to leave)");
            continue;
        }
        leaving = false;
        clear_interrupt();
        try {
            if (!text.empty() && text[0] == '/') {
                if (!command(text)) break;
            } else if (!text.empty() || s_.no_template) {
                answer(text);
            }
            status = 0;
        } catch (const UsageError& error) {
            complain(error.what());
            status = editor_.interactive() ? 0 : 1;
        } catch (const qlora::Error& error) {
            if (interrupted()) note("(stopped)");
            else complain(error.what());
            status = editor_.interactive() ? 0 : 1;
        }
    }
    return editor_.interactive() || !interrupted() ? status : 128 + interrupted();
}

// Takes the last question and everything after it out of the history; returns the question.
std::optional<std::string> Chat::take_back() {
    std::vector<Message> history = session_.history();
    size_t at = history.size();
    while (at > 0 && history[at - 1].role != "user") --at;
    if (at == 0) return {};
    const std::string question = history[at - 1].content;
    history.resize(at - 1);
    session_.set_history(std::move(history));
    return question;
}

void Chat::set_system(const std::string& text) {
    std::vector<Message> history = session_.history();
    std::erase_if(history, [](const Message& m) { return m.role == "system"; });
    if (!text.empty() && !s_.no_template && s_.chat_template.empty()) note_system_role(model_.tokenizer());
    session_.reset(text);
    if (!history.empty()) {
        if (!text.empty()) history.insert(history.begin(), {"system", text});
        session_.set_history(std::move(history));
    }
    s_.system = text;
}

void Chat::save(const std::string& path) const {
    Json list = Json::Array{};
    for (const Message& m : session_.history()) list.push(Json{}.set("role", m.role).set("content", m.content));
    qlora::write_file_atomic(path, Json{}.set("messages", list).dump() + '\n');
}

void Chat::load(const std::string& path) {
    const Json json = Json::parse(qlora::read_file(path, 64 << 20), path);
    const Json* list = json.find("messages");
    if (!list) throw qlora::Error(qlora::Errc::format, path + ": has no \"messages\"");
    std::vector<Message> history;
    for (const Json& m : list->as_array(path + ": messages")) {
        const Json *role = m.find("role"), *content = m.find("content");
        if (!role || !content) throw qlora::Error(qlora::Errc::format, path + ": a message needs role and content");
        history.push_back({role->as_string(path + ": role"), content->as_string(path + ": content")});
    }
    session_.set_history(std::move(history));
}

void Chat::set(const std::string& argument) {
    const qlora::Sampling& now = s_.sampling;
    std::istringstream words(argument);
    std::string name, value;
    if (!(words >> name >> value)) {
        std::fprintf(stderr,
                     "  temp %g, top-k %lld, top-p %g, min-p %g, repeat-penalty %g, max-tokens %lld, seed %llu\n",
                     double(now.temperature), static_cast<long long>(now.top_k), double(now.top_p), double(now.min_p),
                     double(now.repeat_penalty), static_cast<long long>(now.max_tokens),
                     static_cast<unsigned long long>(now.seed));
        return;
    }
    Flags flags("/set", "", "");
    qlora::Sampling changed = now;
    declare_sampling(flags, changed);
    std::string flag = "--" + name, zero = "/set";
    if (name == "help" || name == "version") throw UsageError("unknown setting " + name);
    char* argv[] = {zero.data(), flag.data(), value.data()};
    flags.parse(3, argv);
    check_sampling(changed);
    s_.sampling = changed;
}

bool Chat::command(const std::string& text) {
    const size_t space = text.find_first_of(" \t\n");
    const std::string name = text.substr(0, space);
    const size_t start = space == std::string::npos ? space : text.find_first_not_of(" \t\n", space);
    const std::string argument = start == std::string::npos ? "" : text.substr(start);
    if (name == "/exit" || name == "/quit" || name == "/bye") return false;
    if (name == "/help" || name == "/?") std::fputs(help_text, stderr);
    else if (name == "/clear" || name == "/new" || name == "/reset") {
        session_.reset(s_.system);
        shifted_ = false;
        note("(cleared)");
    } else if (name == "/undo") note(take_back() ? "(taken back)" : "(nothing to take back)");
    else if (name == "/regen" || name == "/retry") {
        const auto question = take_back();
        if (!question) return note("(nothing was asked yet)"), true;
        ++s_.sampling.seed;                            // the same seed would give the same answer
        answer(*question);
    } else if (name == "/system") {
        if (argument.empty()) note(s_.system.empty() ? "(no system text)" : s_.system);
        else set_system(argument), note("(system text set)");
    } else if (name == "/prefill") {
        s_.prefill = argument;
        note(argument.empty() ? "(answers begin as they like)" : "(answers begin with this)");
    } else if (name == "/set") set(argument);
    else if (name == "/save" || name == "/load") {
        if (argument.empty()) throw UsageError(name + " needs a file name");
        if (name == "/save") save(argument), note("(saved)");
        else load(argument), note("(loaded " + std::to_string(session_.history().size()) + " messages)");
    } else if (name == "/stats") note(answers_ ? stats() + "\n" + held() : "(no answer yet)");
    else throw UsageError("unknown command " + name + "; /help lists all of them");
    return true;
}

}  // namespace program
