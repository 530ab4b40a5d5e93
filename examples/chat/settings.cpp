// settings.cpp - the flags of chat, and what they name: files, the standard input, the model's own sampling.
#include "examples/chat/settings.h"

#include "examples/common/streams.h"

#include <cstdio>

namespace program {

void declare_sampling(Flags& flags, qlora::Sampling& s) {
    flags.add("-n --max-new-tokens --n-predict --num-predict --max-tokens", s.max_tokens, -2, int64_t(1) << 40,
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

void check_sampling(qlora::Sampling& s) {
    if (s.max_tokens == 0) throw UsageError("-n 0 leaves no room for an answer; -1 = as many as the context takes");
    if (s.max_tokens < 0) s.max_tokens = int64_t(1) << 40;
    if (s.top_p == 0) s.top_p = 1, s.top_k = 1;
}

void declare(Flags& flags, Settings& s) {
    s.model.declare(flags, true);
    flags.section("Dialogue");
    flags.add("-p --prompt", s.prompt, "TEXT", "answer this and end; what is piped in goes behind it; - = only that");
    flags.add("-f --file", s.file, "FILE", "answer what is in the file, behind the text of -p if there is one");
    flags.add("-s --system --system-prompt -sys", s.system, "TEXT", "system text of the dialogue");
    flags.add("-c --context --ctx-size --ctx", s.context, 0, 1 << 30,
              "tokens of context; 0 = the model's own, 4096 at most");
    flags.toggle("--context-shift", s.shift,
                 "a dialogue that outgrows the context drops its oldest turns; off: the question is refused");
    declare_cache(flags, s.cache);
    flags.toggle("--no-template --raw", s.no_template,
                 "complete raw text instead of answering through the chat template");
    flags.add("--chat-template --chat-template-file", s.chat_template, "FILE",
              "a Jinja template instead of the model's own");
    flags.add("--prefill --prefill-response", s.prefill, "TEXT", "how every answer begins");
    declare_special(flags, s.special,
                    "control tokens written in the text of --no-template: auto and tokens read them, text leaves them "
                    "text; in messages they are always text");
    flags.add("--history", s.history, "FILE|off", "where a terminal's questions are kept for the next session")
        .note("~/.local/state/qlora/chat_history, or in XDG_STATE_HOME");
    flags.toggle("-q --quiet", s.quiet, "neither the speed after each answer, nor a word where -n cuts it");
    flags.section("Sampling; what no flag says is as the model's makers recommend, if they do");
    declare_sampling(flags, s.sampling);
    flags.add("--stop -r --reverse-prompt", s.sampling.stop, "TEXT",
              "ends an answer before this text; may be given several times");
}

static std::string without_last_break(std::string text) {
    if (!text.empty() && text.back() == '\n') text.pop_back();
    if (!text.empty() && text.back() == '\r') text.pop_back();
    return text;
}

void finish(Settings& s) {
    qlora::Sampling trial = s.sampling;
    check_sampling(trial);                             // before the minutes of loading
    if (s.no_template && !s.chat_template.empty())
        throw UsageError("--no-template uses no chat template and --chat-template names one: choose one");
    if (s.no_template && !s.prefill.empty())
        throw UsageError("--no-template has no answers to begin: write the text of --prefill at the end of the prompt");
    // a template itself, as llama.cpp takes it, has marks that no file name has
    if (!s.chat_template.empty() && s.chat_template.find("{%") == std::string::npos &&
        s.chat_template.find("{{") == std::string::npos)
        s.chat_template = qlora::read_file(s.chat_template, 16 << 20);
}

std::string follow_model(Settings& s, const Flags& flags, const qlora::Model& model) {
    const qlora::Sampling own = model.sampling(), usual;
    std::string said;
    const auto take = [&](const char* flag, auto& value, auto recommended, auto otherwise) {
        if (flags.given(flag) || recommended == otherwise) return;
        value = recommended;
        char text[64];
        std::snprintf(text, sizeof text, "%s%s %g", said.empty() ? "" : ", ", flag, double(recommended));
        said += text;
    };
    take("--temp", s.sampling.temperature, own.temperature, usual.temperature);
    take("--top-k", s.sampling.top_k, own.top_k, usual.top_k);
    take("--top-p", s.sampling.top_p, own.top_p, usual.top_p);
    take("--min-p", s.sampling.min_p, own.min_p, usual.min_p);
    take("--repeat-penalty", s.sampling.repeat_penalty, own.repeat_penalty, usual.repeat_penalty);
    take("--repeat-last", s.sampling.repeat_last, own.repeat_last, usual.repeat_last);
    return said.empty() ? "" : "sampling as the model's makers recommend: " + said;
}

std::optional<std::string> question_of(const Settings& s, const Flags& flags) {
    if (!flags.given("--prompt") && !flags.given("--file")) return {};
    const bool only_input = s.prompt == "-";
    std::string text = only_input ? "" : s.prompt;
    const auto append = [&](const std::string& piece) {
        text += (text.empty() || piece.empty() ? "" : "\n\n") + piece;
    };
    if (!s.file.empty()) append(without_last_break(qlora::read_file(s.file, 64 << 20)));
    if (only_input || is_piped(0)) append(without_last_break(read_all()));
    return text;
}

}  // namespace program
