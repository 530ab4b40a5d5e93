// chat.cpp - talk to a model: streaming, history, commands; once with -p, from a pipe, or at a prompt. Answers go to
// stdout, all else to stderr.
#include "examples/common/interrupt.h"
#include "examples/common/lineedit.h"
#include "examples/common/load.h"
#include "examples/common/rows.h"
#include "examples/common/terminal.h"

#include <cstdio>
#include <sstream>

using namespace program;
using qlora::Json;
using qlora::Message;

struct Settings {
    ModelFlags model;
    qlora::Sampling sampling;
    std::string prompt, system, special = "auto";
    int64_t context = 0;
    std::string cache = "auto";
    bool no_template = false, quiet = false;
};

// The flags that /set can change too.
static void declare_sampling(Flags& flags, qlora::Sampling& s) {
    flags.add("-n --max-tokens --n-predict --num-predict", s.max_tokens, -2, int64_t(1) << 40,
              "tokens an answer has at most; -1 = as many as the context takes");
    flags.add("--temp --temperature", s.temperature, 0, 100, "randomness; 0 = always the likeliest token");
    flags.add("--top-k", s.top_k, 0, 1 << 30, "only the K likeliest tokens; 0 = all");
    flags.add("--top-p", s.top_p, 0, 1, "only the likeliest tokens that together have this probability");
    flags.add("--min-p", s.min_p, 0, 1, "only tokens with this share of the likeliest one's probability");
    flags.add("--repeat-penalty --repetition-penalty", s.repeat_penalty, 0.01, 100,
              "above 1: what was said lately becomes less likely");
    flags.add("--repeat-last --repeat-last-n", s.repeat_last, 0, 1 << 30, "tokens that count as lately");
    flags.add("--seed", s.seed, "same seed, same answer");
}

// After parsing, what llama.cpp's values mean: -1 and -2 no limit but the context's, a share of 0 the likeliest token.
static void check_sampling(qlora::Sampling& s) {
    if (s.max_tokens == 0) throw UsageError("-n 0 leaves no room for an answer; -1 = as many as the context takes");
    if (s.max_tokens < 0) s.max_tokens = int64_t(1) << 40;
    if (s.top_p == 0) s.top_p = 1, s.top_k = 1;
}

static const char* const help_text =
    "  /help              this text\n"
    "  /clear             forget the dialogue (the system text stays)\n"
    "  /regen             answer the last question again, differently\n"
    "  /undo              take the last question and its answer back\n"
    "  /system [TEXT]     set the system text; without TEXT show it\n"
    "  /set NAME VALUE    temp, top-k, top-p, min-p, repeat-penalty, max-tokens, seed; without a name show them\n"
    "  /save FILE         write the dialogue as one JSON line, in the form that finetune reads\n"
    "  /load FILE         read such a dialogue and go on with it\n"
    "  /stats             speed and context of the last answer\n"
    "  /exit              leave (also Ctrl-D, or Ctrl-C twice)\n"
    "  Ctrl-C stops an answer. A line ending in \\ goes on; \"\"\" opens and closes a block of lines.\n";

class Chat {
public:
    Chat(Settings& s, const qlora::Tokenizer& tokenizer, qlora::Session session)
        : s_(s), tokenizer_(tokenizer), session_(std::move(session)) {
        if (!s_.system.empty()) set_system(s_.system);
    }

    int once() {
        answer(s_.prompt);
        return interrupted() ? 128 + interrupted() : 0;
    }

    int converse() {
        LineEditor editor;
        bool leaving = false;                          // Ctrl-C at an empty prompt: a second one leaves
        int status = 0;
        while (true) {
            std::string text;
            const auto result = editor.read("> ", text);
            if (result == LineEditor::Result::end || (!editor.interactive() && interrupted()) || std::ferror(stdout))
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
            } catch (const qlora::Error& error) {
                if (interrupted()) note("(stopped)");
                else complain(error.what());
                status = editor.interactive() ? 0 : 1;
            }
        }
        return editor.interactive() || !interrupted() ? status : 128 + interrupted();
    }

private:
    void note(const std::string& text) { std::fprintf(stderr, "%s\n", styled(text, Style::dim, 2).c_str()); }
    void complain(const std::string& text) { std::fprintf(stderr, "chat: %s\n", one_line(text).c_str()); }

    void answer(const std::string& text) {
        bool ended = true;                             // does the output end in a line break?
        const qlora::OnText print = [&](std::string_view piece) {
            if (piece.empty()) return interrupted() == 0;                      // still reading the prompt
            std::fwrite(piece.data(), 1, piece.size(), stdout);
            std::fflush(stdout);
            ended = piece.back() == '\n';
            return interrupted() == 0 && !std::ferror(stdout);
        };
        if (s_.no_template) session_.complete(text, s_.sampling, print, reads_control(s_.special));
        else session_.chat(text, s_.sampling, print);
        if (!ended || is_terminal(1)) std::fputs("\n", stdout), std::fflush(stdout);
        if (interrupted()) note("(stopped)");
        if (!s_.quiet) note(stats());
        ++answers_;
    }

    std::string stats() const {
        const qlora::SessionStats t = session_.stats();
        char text[200];
        std::snprintf(text, sizeof text, "[%lld tokens, %.1f tok/s; prompt %lld tokens in %s; context %lld of %lld]",
                      static_cast<long long>(t.reply_tokens),
                      t.reply_seconds > 0 ? double(t.reply_tokens) / t.reply_seconds : 0,
                      static_cast<long long>(t.prompt_tokens), human_time(t.prompt_seconds).c_str(),
                      static_cast<long long>(t.context_used), static_cast<long long>(t.context));
        return text;
    }

    // Takes the last question and everything after it out of the history; returns the question.
    std::optional<std::string> take_back() {
        std::vector<Message> history = session_.history();
        size_t at = history.size();
        while (at > 0 && history[at - 1].role != "user") --at;
        if (at == 0) return {};
        const std::string question = history[at - 1].content;
        history.resize(at - 1);
        session_.set_history(std::move(history));
        return question;
    }

    void set_system(const std::string& text) {
        std::vector<Message> history = session_.history();
        std::erase_if(history, [](const Message& m) { return m.role == "system"; });
        if (!text.empty() && !s_.no_template) note_system_role(tokenizer_);
        session_.reset(text);
        if (!history.empty()) {
            if (!text.empty()) history.insert(history.begin(), {"system", text});
            session_.set_history(std::move(history));
        }
        s_.system = text;
    }

    void save(const std::string& path) const {
        Json list = Json::Array{};
        for (const Message& m : session_.history()) list.push(Json{}.set("role", m.role).set("content", m.content));
        qlora::write_file_atomic(path, Json{}.set("messages", list).dump() + '\n');
    }

    void load(const std::string& path) {
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

    void set(const std::string& argument) {
        const qlora::Sampling& now = s_.sampling;
        std::istringstream words(argument);
        std::string name, value;
        if (!(words >> name >> value)) {
            std::fprintf(stderr,
                         "  temp %g, top-k %lld, top-p %g, min-p %g, repeat-penalty %g, max-tokens %lld, seed %llu\n",
                         double(now.temperature), static_cast<long long>(now.top_k), double(now.top_p),
                         double(now.min_p), double(now.repeat_penalty), static_cast<long long>(now.max_tokens),
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

    bool command(const std::string& text) {            // false: leave
        const size_t space = text.find_first_of(" \t\n");
        const std::string name = text.substr(0, space);
        const size_t start = space == std::string::npos ? space : text.find_first_not_of(" \t\n", space);
        const std::string argument = start == std::string::npos ? "" : text.substr(start);
        if (name == "/exit" || name == "/quit" || name == "/bye") return false;
        if (name == "/help" || name == "/?") std::fputs(help_text, stderr);
        else if (name == "/clear" || name == "/new" || name == "/reset") session_.reset(s_.system), note("(cleared)");
        else if (name == "/undo") note(take_back() ? "(taken back)" : "(nothing to take back)");
        else if (name == "/regen" || name == "/retry") {
            const auto question = take_back();
            if (!question) return note("(nothing was asked yet)"), true;
            ++s_.sampling.seed;                        // the same seed would give the same answer
            answer(*question);
        } else if (name == "/system") {
            if (argument.empty()) note(s_.system.empty() ? "(no system text)" : s_.system);
            else set_system(argument), note("(system text set)");
        } else if (name == "/set") set(argument);
        else if (name == "/save" || name == "/load") {
            if (argument.empty()) throw UsageError(name + " needs a file name");
            if (name == "/save") save(argument), note("(saved)");
            else load(argument), note("(loaded " + std::to_string(session_.history().size()) + " messages)");
        } else if (name == "/stats") note(answers_ ? stats() + "\n" + held() : "(no answer yet)");
        else throw UsageError("unknown command " + name + "; /help lists all of them");
        return true;
    }

    std::string held() const {
        const qlora::SessionStats t = session_.stats();
        return "[keys and values: " + human_bytes(t.cache_bytes) + " of " + std::string(qlora::name_of(t.cache)) +
               "; --cache chooses the type]";
    }

    Settings& s_;
    qlora::Tokenizer tokenizer_;
    qlora::Session session_;
    int64_t answers_ = 0;
};

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("chat", "-m MODEL [--adapter DIR] [-p PROMPT] [options]",
                "Talks to a model: at a prompt, from a pipe, or once with -p.");
    s.model.declare(flags, true);
    flags.section("Dialogue");
    flags.add("-p --prompt", s.prompt, "TEXT", "answer this and end");
    flags.add("-s --system --system-prompt -sys", s.system, "TEXT", "system text of the dialogue");
    flags.add("-c --context --ctx-size --ctx", s.context, 0, 1 << 30,
              "tokens of context; 0 = the model's own, 4096 at most");
    declare_cache(flags, s.cache);
    flags.toggle("--no-template --raw", s.no_template,
                 "complete raw text instead of answering through the chat template");
    declare_special(flags, s.special,
                    "control tokens written in the text of --no-template: auto and tokens read them, text leaves them "
                    "text; in messages they are always text");
    flags.toggle("-q --quiet", s.quiet, "no speed after each answer");
    flags.section("Sampling");
    declare_sampling(flags, s.sampling);
    flags.add("--stop -r --reverse-prompt", s.sampling.stop, "TEXT",
              "ends an answer before this text; may be given several times");
    flags.parse(argc, argv);
    check_sampling(s.sampling);
    s.model.follow_adapter(flags);
    catch_interrupts();
    const qlora::StopScope stoppable(go_on);

    const Loaded loaded(s.model);
    if (!s.no_template && !s.quiet && !loaded.model.tokenizer().has_chat_template())
        std::fprintf(
            stderr, "%s\n",
            styled(s.model.model + " has no chat template: a built-in one is used (--no-template completes raw text)",
                   Style::dim, 2)
                .c_str());
    Chat chat(s, loaded.model.tokenizer(),
              loaded.with([&](const auto& m) { return qlora::Session(m, session_options(s.context, s.cache)); }));
    if (flags.given("--prompt")) return chat.once();
    if (is_terminal(0) && is_terminal(1))
        std::fprintf(stderr, "%s\n",
                     styled(base_line(loaded.model) + "\n/help lists the commands", Style::dim, 2).c_str());
    return chat.converse();
}

int main(int argc, char** argv) {
    return run("chat", [&] { return body(argc, argv); });
}
