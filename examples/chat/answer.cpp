// answer.cpp - from a question to an answer: room in the context, the words as they come, and what is said behind them.
#include "examples/chat/chat.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"
#include "examples/common/wording.h"

#include <algorithm>
#include <cstdio>

namespace program {

using qlora::Message;

Chat::Chat(Settings& s, qlora::Model model, qlora::Session session)
    : s_(s), model_(std::move(model)), session_(std::move(session)) {
    if (!s_.system.empty()) set_system(s_.system);
    if (!editor_.interactive() || s_.history == "off") return;
    editor_.history().open(s_.history == "auto" ? state_file("chat_history") : s_.history);
    if (const std::string& error = editor_.history().error(); !error.empty()) note("(no history: " + error + ')');
}

void Chat::note(const std::string& text) const { std::fprintf(stderr, "%s\n", styled(text, Style::dim, 2).c_str()); }

void Chat::complain(const std::string& text) const {
    std::fprintf(stderr, "chat: %s\n", one_line(in_program_words(text)).c_str());
}

int64_t Chat::tokens_of(const std::vector<Message>& dialogue, const std::string& question) const {
    std::vector<Message> all = dialogue;
    all.push_back({"user", question});
    return int64_t(model_.tokenizer().render(all, s_.rendering()).tokens.size());
}

static std::string count(int64_t number, const char* what) {
    return std::to_string(number) + ' ' + what + (number == 1 ? "" : "s");
}

// An answer has room for a quarter of the context (or all that -n lets it have). Where the dialogue leaves less, it
// loses its oldest turns until half of the context is free: what is left is read anew, which should not be needed at
// every question.
void Chat::make_room(const std::string& question) {
    const int64_t context = session_.stats().context,
                  wanted = std::min(s_.sampling.max_tokens, std::max<int64_t>(1, context / 4));
    std::vector<Message> dialogue = session_.history();
    int64_t tokens = tokens_of(dialogue, question);
    if (tokens + wanted <= context) return;
    const bool has_turns = std::any_of(dialogue.begin(), dialogue.end(), [](auto& m) { return m.role != "system"; });
    if (!s_.shift && has_turns && tokens >= context)
        throw UsageError("the dialogue has " + count(tokens, "token") + " with this question, and the context " +
                         std::to_string(context) +
                         ": /clear forgets it, /undo takes a turn back, -c makes the context larger, --context-shift "
                         "drops the oldest turns");
    int64_t dropped = 0;
    while (s_.shift && has_turns && tokens > context / 2) {
        const auto asks = [](const Message& m) { return m.role == "user"; };
        const auto first = std::find_if(dialogue.begin(), dialogue.end(), asks);
        if (first == dialogue.end()) break;
        dialogue.erase(first, std::find_if(first + 1, dialogue.end(), asks));
        tokens = tokens_of(dialogue, question);
        ++dropped;
    }
    if (tokens >= context)
        throw UsageError("the question has " + count(tokens, "token") + " with all that belongs to it, and the " +
                         "context " + std::to_string(context) + ": shorten it, or make the context larger with -c");
    if (dropped == 0) return;
    session_.set_history(std::move(dialogue));
    if (shifted_) return;
    shifted_ = true;
    note("(the context of " + count(context, "token") + " is full: the " +
         (dropped == 1 ? "oldest turn is" : "oldest " + count(dropped, "turn") + " are") +
         " forgotten, and more will be; --context-shift off refuses instead)");
}

// Of text that is no dialogue nothing can be dropped.
void Chat::check_room(const std::string& text) const {
    const int64_t context = session_.stats().context,
                  tokens = int64_t(model_.tokenizer().encode(text, true, reads_control(s_.special)).size());
    if (tokens >= context)
        throw UsageError("the prompt has " + count(tokens, "token") + ", and the context " + std::to_string(context) +
                         ": shorten it, or make the context larger with -c");
}

void Chat::answer(const std::string& text) {
    if (s_.no_template) check_room(text);
    else make_room(text);
    bool ended = true;                                 // does the output end in a line break?
    const qlora::OnText print = [&](std::string_view piece) {
        if (piece.empty()) return interrupted() == 0;  // still reading the prompt
        std::fwrite(piece.data(), 1, piece.size(), stdout);
        std::fflush(stdout);
        ended = piece.back() == '\n';
        return interrupted() == 0 && !std::ferror(stdout);
    };
    qlora::Reply reply;
    if (s_.no_template) reply = session_.complete(text, s_.sampling, print, reads_control(s_.special));
    else {
        if (!s_.prefill.empty()) print(s_.prefill);
        const Message question{"user", text};
        reply = session_.chat(std::span(&question, 1), s_.rendering(), s_.sampling, print);
    }
    if (!ended || is_terminal(1)) std::fputs("\n", stdout), std::fflush(stdout);
    mark(reply.finish);
    if (!s_.quiet) note(stats());
    ++answers_;
}

// An answer that the model did not end itself.
void Chat::mark(qlora::Finish finish) const {
    if (interrupted()) return note("(stopped)");
    const qlora::SessionStats t = session_.stats();
    if (finish == qlora::Finish::length && !s_.quiet)
        note("(cut: an answer has " + count(s_.sampling.max_tokens, "token") + " at most; -n or /set max-tokens)");
    else if (finish == qlora::Finish::context_full)
        note("(cut: the context of " + count(t.context, "token") + " is full; -c makes it larger)");
}

std::string Chat::stats() const {
    const qlora::SessionStats t = session_.stats();
    char text[200];
    std::snprintf(text, sizeof text, "[%lld tokens, %.1f tok/s; prompt %lld tokens in %s; context %lld of %lld]",
                  static_cast<long long>(t.reply_tokens),
                  t.reply_seconds > 0 ? double(t.reply_tokens) / t.reply_seconds : 0,
                  static_cast<long long>(t.prompt_tokens), human_time(t.prompt_seconds).c_str(),
                  static_cast<long long>(t.context_used), static_cast<long long>(t.context));
    return text;
}

std::string Chat::held() const {
    const qlora::SessionStats t = session_.stats();
    return "[keys and values: " + human_bytes(t.cache_bytes) + " of " + std::string(qlora::name_of(t.cache)) +
           "; --cache chooses the type]";
}

}  // namespace program
