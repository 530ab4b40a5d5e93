// chat.cpp - talk to a model: streaming, history, commands; once with -p or -f, from a pipe, or at a prompt. Answers go
// to stdout, all else to stderr. Its rooms are in examples/chat: settings (the flags), answer (a question, its room in
// the context, its answer), commands (the prompt).
#include "examples/chat/chat.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"

#include <cstdio>

using namespace program;

static void say(const std::string& text) { std::fprintf(stderr, "%s\n", styled(text, Style::dim, 2).c_str()); }

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("chat", "-m MODEL [--adapter DIR] [-p PROMPT] [options]",
                "Talks to a model: at a prompt, from a pipe, or once with -p or -f.");
    declare(flags, s);
    flags.take_config();
    flags.parse(argc, argv);
    finish(s);
    s.model.follow_adapter(flags);
    catch_interrupts();
    const qlora::StopScope stoppable(go_on);

    const std::optional<std::string> question = question_of(s, flags);
    const Loaded loaded(s.model);
    if (const int64_t own = loaded.model.info().context; own > 0 && s.context > own)
        throw UsageError("-c " + std::to_string(s.context) + ": the model was made for " + std::to_string(own) +
                         " tokens; -c " + std::to_string(own) + " or less");
    if (!s.no_template && !s.quiet && s.chat_template.empty() && !loaded.model.tokenizer().has_chat_template())
        say(s.model.model + " has no chat template: a built-in one is used (--no-template completes raw text)");
    const std::string recommended = follow_model(s, flags, loaded.model);
    check_sampling(s.sampling);
    if (!s.quiet && !recommended.empty()) say(recommended);
    Chat chat(s, loaded.model,
              loaded.with([&](const auto& m) { return qlora::Session(m, session_options(s.context, s.cache)); }));
    if (question) return chat.once(*question);
    if (is_terminal(0) && is_terminal(1)) say(base_line(loaded.model) + "\n/help lists the commands");
    return chat.converse();
}

int main(int argc, char** argv) {
    return run("chat", [&] { return body(argc, argv); });
}
