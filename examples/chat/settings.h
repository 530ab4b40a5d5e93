// settings.h - everything that the command line of chat can say.
#pragma once
#include "examples/common/load.h"
#include "examples/common/rows.h"

namespace program {

struct Settings {
    ModelFlags model;
    qlora::Sampling sampling;
    std::string prompt, file, system, special = "auto", prefill, chat_template, history = "auto";
    int64_t context = 0;
    std::string cache = "auto";
    bool shift = true, no_template = false, quiet = false;

    // How the dialogue is printed for the model, with the next answer opened.
    qlora::RenderOptions rendering() const {
        return {.reply_next = true, .prefill = prefill, .chat_template = chat_template};
    }
};

void declare(Flags& flags, Settings& s);
void declare_sampling(Flags& flags, qlora::Sampling& sampling);        // those that /set can change too
// After parsing, what llama.cpp's values mean: -1 and -2 no limit but the context's, a share of 0 the likeliest token.
void check_sampling(qlora::Sampling& sampling);
void finish(Settings& s);                              // after parsing: reads the files that the flags name
// The sampling that the model's makers recommend, where no flag says otherwise; "" or a line that says what it is.
std::string follow_model(Settings& s, const Flags& flags, const qlora::Model& model);

// What -p, -f and a pipe say together, with blank lines between; nothing where neither -p nor -f is given.
std::optional<std::string> question_of(const Settings& s, const Flags& flags);

}  // namespace program
