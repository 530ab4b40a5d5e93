// rows.cpp - see rows.h.
#include "examples/common/rows.h"

#include "examples/common/terminal.h"

#include <cstdio>

namespace program {

void declare_special(Flags& flags, std::string& special, const std::string& where) {
    flags.choice("--special", special, {"auto", "tokens", "text"}, where);
}

void RowFlags::declare(Flags& flags) {
    flags.choice("--loss", loss, {"assistant", "completion", "all"}, "train on the assistant's turns, on its last one, or on everything");
    declare_special(flags, special, "control tokens written in rows: auto = read in {text}, .txt and prompts that hold the template's marks, "
                                    "never in messages; tokens = in messages too (unsafe: a message can end its turn); text = never");
}

qlora::DatasetOptions RowFlags::options(int64_t context) const {
    qlora::DatasetOptions o{.context = context};
    o.loss = loss == "all" ? qlora::Loss::all : loss == "completion" ? qlora::Loss::completion : qlora::Loss::assistant;
    o.special = special == "tokens" ? qlora::Special::tokens : special == "text" ? qlora::Special::text : qlora::Special::automatic;
    return o;
}

void RowFlags::warn() const {
    if (special == "tokens")
        std::fprintf(stderr, "%s\n", styled("warning: --special tokens is unsafe: whoever wrote a message can end its turn and speak as another", Style::yellow, 2).c_str());
}

static std::string counted(int64_t n) { return std::to_string(n); }

std::string rows_line(const qlora::DatasetInfo& info) {
    std::string line = counted(info.rows) + " rows (" + info.format + "), " + human_count(double(info.tokens)) + " tokens, " +
                       human_count(double(info.trained_tokens)) + " of them trained on";
    if (info.turns) line += "; " + counted(info.turns) + " assistant turns, " + counted(info.trained_turns) + " trained";
    if (info.excluded_turns) line += ", " + counted(info.excluded_turns) + " excluded";
    if (info.cut_turns) line += ", " + counted(info.cut_turns) + " behind the cut";
    if (info.silent_turns) line += ", " + counted(info.silent_turns) + " that the template prints nothing for";
    line += "; longest row " + counted(info.longest) + ", truncated " + counted(info.truncated);
    if (info.dropped) line += ", dropped " + counted(info.dropped) + " with nothing to train on";
    if (info.templated) line += "; " + counted(info.templated) + " rows hold the template's marks already";
    if (info.control_tokens) line += "; " + counted(info.control_tokens) + " control tokens read in the text";
    if (info.spelled) line += "; " + counted(info.spelled) + " spelled in the text and left as text";
    for (size_t i = 0; i < info.unused.size(); ++i)
        line += (i ? ", " : "; not used: ") + info.unused[i].first + " (" + counted(info.unused[i].second) + ")";
    return line;
}

}  // namespace program
