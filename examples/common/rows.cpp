// rows.cpp - see rows.h.
#include "examples/common/rows.h"

#include "examples/common/terminal.h"

#include <cstdio>

namespace program {

static constexpr std::pair<qlora::Loss, const char*> losses[] = {
    {qlora::Loss::assistant, "assistant"}, {qlora::Loss::completion, "completion"}, {qlora::Loss::all, "all"}};
static constexpr std::pair<qlora::Special, const char*> specials[] = {
    {qlora::Special::automatic, "auto"}, {qlora::Special::tokens, "tokens"}, {qlora::Special::text, "text"}};

template <class T, size_t n>
static const char* spelled(const std::pair<T, const char*> (&table)[n], T value) {
    for (const auto& [known, name] : table) if (known == value) return name;
    return "";
}
template <class T, size_t n>
static T read(const std::pair<T, const char*> (&table)[n], const std::string& name, const std::string& where) {
    std::string names;
    for (const auto& [value, known] : table) {
        if (name == known) return value;
        names += std::string(names.empty() ? "" : ", ") + known;
    }
    throw qlora::Error(qlora::Errc::format, where + ": \"" + name + "\" is none of " + names);
}

const char* name_of(qlora::Loss loss) { return spelled(losses, loss); }
const char* name_of(qlora::Special special) { return spelled(specials, special); }
qlora::Loss loss_of(const std::string& name, const std::string& where) { return read(losses, name, where); }
qlora::Special special_of(const std::string& name, const std::string& where) { return read(specials, name, where); }

void declare_special(Flags& flags, std::string& special, const std::string& where) {
    flags.choice("--special", special, {"auto", "tokens", "text"}, where);
}

void RowFlags::declare(Flags& flags) {
    flags.choice("--loss", loss, {"assistant", "completion", "all"},
                 "train on the assistant's turns, on its last one, or on everything");
    declare_special(
        flags, special,
        "control tokens written in rows: auto = read in {text}, .txt and prompts that hold the template's marks, "
        "never in messages; tokens = in messages too (unsafe: a message can end its turn); text = never");
}

qlora::DatasetOptions RowFlags::options(int64_t context) const {
    qlora::DatasetOptions o{.context = context};
    o.loss = loss_of(loss, "--loss");
    o.special = special_of(special, "--special");
    return o;
}

qlora::Dataset load_rows(const std::vector<std::string>& paths, const qlora::Tokenizer& tokenizer,
                         const qlora::DatasetOptions& options) {
    std::vector<qlora::Dataset> parts;
    for (const std::string& path : paths) parts.push_back(qlora::Dataset::load(path, tokenizer, options));
    return qlora::Dataset::join(parts);
}

void RowFlags::warn() const {
    if (special == "tokens")
        std::fprintf(
            stderr, "%s\n",
            styled("warning: --special tokens is unsafe: whoever wrote a message can end its turn and speak as another",
                   Style::yellow, 2)
                .c_str());
}

static std::string counted(int64_t n) { return std::to_string(n); }

std::string rows_line(const qlora::DatasetInfo& info) {
    std::string line = counted(info.rows) + " rows (" + info.format + "), " + human_count(double(info.tokens)) +
                       " tokens, " + human_count(double(info.trained_tokens)) + " of them trained on";
    if (info.turns)
        line += "; " + counted(info.turns) + " assistant turns, " + counted(info.trained_turns) + " trained";
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
