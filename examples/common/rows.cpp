// rows.cpp - see rows.h.
#include "examples/common/rows.h"

#include "examples/common/terminal.h"

#include <algorithm>
#include <cstdio>

namespace program {

static constexpr std::pair<qlora::Loss, const char*> losses[] = {
    {qlora::Loss::assistant, "assistant"}, {qlora::Loss::completion, "completion"}, {qlora::Loss::all, "all"}};
static constexpr std::pair<qlora::Special, const char*> specials[] = {
    {qlora::Special::automatic, "auto"}, {qlora::Special::tokens, "tokens"}, {qlora::Special::text, "text"}};
static constexpr std::pair<qlora::SystemRule, const char*> systems[] = {
    {qlora::SystemRule::merge, "merge"}, {qlora::SystemRule::drop, "drop"}, {qlora::SystemRule::error, "error"}};
static constexpr std::pair<qlora::LongRows, const char*> lengths[] = {
    {qlora::LongRows::cut, "cut"}, {qlora::LongRows::drop, "drop"}, {qlora::LongRows::split, "split"}};

template <class T, size_t n>
static const char* spelled(const std::pair<T, const char*> (&table)[n], T value) {
    for (const auto& [known, name] : table)
        if (known == value) return name;
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

const char* name_of(qlora::SystemRule rule) { return spelled(systems, rule); }
const char* name_of(qlora::LongRows rule) { return spelled(lengths, rule); }
qlora::SystemRule system_rule_of(const std::string& name, const std::string& where) {
    return read(systems, name, where);
}
qlora::LongRows long_rows_of(const std::string& name, const std::string& where) { return read(lengths, name, where); }

std::vector<std::pair<std::string, std::string>> columns_of(const std::string& list) {
    std::vector<std::pair<std::string, std::string>> columns;
    for (size_t from = 0; !list.empty() && from <= list.size();) {
        const size_t to = std::min(list.find(',', from), list.size());
        const std::string entry = list.substr(from, to - from);
        const size_t at = entry.find('=');
        if (at == std::string::npos || at == 0)
            throw UsageError("--columns: \"" + one_line(entry) +
                             "\" needs THEIRS=OURS, as in question=prompt,answer=completion");
        columns.emplace_back(entry.substr(0, at), entry.substr(at + 1));
        from = to + 1;
    }
    return columns;
}

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
    flags
        .add("--columns", columns, "LIST",
             "columns of the rows by another name, as in question=prompt,answer=completion; an empty name leaves one "
             "out")
        .note("as they are called");
    flags.choice("--system", system, {"merge", "drop", "error"},
                 "a system text where the chat template has no such role: put before the first question, left out, or "
                 "an error");
    flags.choice("--bad-rows", bad, {"error", "skip"}, "rows that cannot be read: an error, or counted and left out");
    flags.choice("--long-rows", lengthy, {"cut", "drop", "split"},
                 "rows of more tokens than --max-seq-len: cut, left out, or split into several");
}

qlora::DatasetOptions RowFlags::options(int64_t context) const {
    qlora::DatasetOptions o{.context = context};
    o.loss = loss_of(loss, "--loss");
    o.special = special_of(special, "--special");
    o.system = system_rule_of(system, "--system");
    o.long_rows = long_rows_of(lengthy, "--long-rows");
    o.skip_bad_rows = bad == "skip";
    o.columns = columns_of(columns);
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

// " (chats.jsonl:4, 9, 12, ...)": places of one file are named by their lines.
static std::string places(const std::vector<std::string>& at, int64_t count) {
    std::string out, file;
    for (const std::string& place : at) {
        const size_t colon = place.rfind(':');
        const std::string of = place.substr(0, colon);
        out += (out.empty() ? " (" : ", ") + (of == file ? place.substr(colon + 1) : place);
        file = of;
    }
    if (out.empty()) return out;
    return out + (int64_t(at.size()) < count ? ", ...)" : ")");
}

std::string rows_line(const qlora::DatasetInfo& info) {
    std::string line = counted(info.rows) + " rows (" + info.format + "), " + human_count(double(info.tokens)) +
                       " tokens, " + human_count(double(info.trained_tokens)) + " of them trained on";
    if (info.turns)
        line += "; " + counted(info.turns) + " assistant turns, " + counted(info.trained_turns) + " trained";
    if (info.excluded_turns) line += ", " + counted(info.excluded_turns) + " excluded";
    if (info.cut_turns) line += ", " + counted(info.cut_turns) + " behind the cut";
    if (info.silent_turns) line += ", " + counted(info.silent_turns) + " that the template prints nothing for";
    line += "; longest row " + counted(info.longest) + ", truncated " + counted(info.truncated) +
            places(info.truncated_at, info.truncated);
    if (info.dropped)
        line += ", dropped " + counted(info.dropped) + " with nothing to train on" +
                places(info.dropped_at, info.dropped);
    if (info.long_dropped) line += ", " + counted(info.long_dropped) + " too long left out";
    if (info.long_split) line += ", " + counted(info.long_split) + " too long split";
    line += places(info.long_at, info.long_dropped + info.long_split);
    if (info.bad) line += "; " + counted(info.bad) + " bad rows left out, the first: " + info.bad_at[0];
    if (info.bad > 1 && info.bad_at.size() > 1) line += " | " + info.bad_at[1];
    if (info.merged_systems)
        line += "; the chat template has no system role: " + counted(info.merged_systems) +
                " system texts put before the first question (--system drop|error)";
    if (info.templated) line += "; " + counted(info.templated) + " rows hold the template's marks already";
    if (info.control_tokens) line += "; " + counted(info.control_tokens) + " control tokens read in the text";
    if (info.spelled) line += "; " + counted(info.spelled) + " spelled in the text and left as text";
    for (size_t i = 0; i < info.unused.size(); ++i)
        line += (i ? ", " : "; not used: ") + info.unused[i].first + " (" + counted(info.unused[i].second) + ")";
    return line;
}

}  // namespace program
