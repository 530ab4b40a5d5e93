// record_files.cpp - which file a data set is, and where its records begin and end: each is parsed alone, and errors
// name its line. Records are JSON: one a line (.jsonl), one after another over several lines, the elements of an array,
// or those of an array that stands in an object ({"data": [...]}).
#include "src/base/file.h"
#include "src/base/stop.h"
#include "src/run/records.h"

#include <algorithm>

namespace qlora {
inline namespace QLORA_ABI {
namespace record_files_room {

bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

struct Scanner {
    std::string_view text;
    const std::string& path;
    size_t at = 0;
    int64_t line = 1;

    bool ended() const { return at >= text.size(); }
    void skip_blanks() {
        while (!ended() && blank(text[at])) line += text[at++] == '\n';
    }
    bool skip(char c) {
        skip_blanks();
        if (ended() || text[at] != c) return false;
        ++at;
        return true;
    }
    // A value up to its last bracket or quote; others up to a comma, a bracket or a blank. false: it does not end.
    bool skip_value() {
        int64_t depth = 0;
        bool quoted = false;
        for (const size_t begin = at; !ended(); ++at) {
            const char c = text[at];
            if (c == '\n') ++line;
            if (quoted) {
                if (c == '\\') ++at;
                else if (c == '"') quoted = false;
                else continue;
                if (depth == 0 && !quoted) return ++at, true;
            } else if (c == '"') quoted = true;
            else if (c == '{' || c == '[') ++depth;
            else if (c == '}' || c == ']') {
                if (depth == 0) return at > begin;
                if (--depth == 0) return ++at, true;
            } else if (depth == 0 && (c == ',' || blank(c))) return line -= c == '\n', true;
        }
        return depth == 0 && !quoted;
    }
};

// Behind the opening bracket; the closing one is read.
std::vector<Record> elements(Scanner& s) {
    std::vector<Record> records;
    while (true) {
        check_stop();
        s.skip_blanks();
        if (s.skip(']')) return records;    // also behind a comma too many
        const size_t begin = s.at;
        const int64_t first = s.line;
        if (s.ended() || !s.skip_value())
            fail(Errc::format, "dataset ", s.path, ":", first,
                 ": the array ends inside this record; the file is cut off");
        s.skip_blanks();
        // up to a border, whatever stands there: the parser says what is wrong with it
        while (!s.ended() && s.text[s.at] != ',' && s.text[s.at] != ']') s.line += s.text[s.at++] == '\n';
        records.push_back({first, s.text.substr(begin, s.at - begin)});
        if (s.ended())
            fail(Errc::format, "dataset ", s.path, ":", first,
                 ": the array does not end behind this record; "
                 "the file is cut off");
        if (s.text[s.at] == ',') ++s.at;
    }
}

std::vector<Record> lines(std::string_view text, int64_t line) {
    std::vector<Record> records;
    for (size_t at = 0; at < text.size(); ++line) {
        check_stop();
        const size_t end = std::min(text.find('\n', at), text.size());
        std::string_view content = text.substr(at, end - at);
        at = end + 1;
        while (!content.empty() && blank(content.back())) content.remove_suffix(1);
        if (content.ends_with("},")) content.remove_suffix(1);    // lines that were cut out of an array
        if (!std::all_of(content.begin(), content.end(), blank)) records.push_back({line, content});
    }
    return records;
}

// Records over several lines each. false: one of them does not end, and what is wrong is seen better line by line.
bool values(Scanner s, std::vector<Record>& records) {
    for (s.skip_blanks(); !s.ended(); s.skip_blanks()) {
        check_stop();
        const size_t begin = s.at;
        const int64_t first = s.line;
        if (s.text[s.at] != '{' || !s.skip_value()) return false;
        records.push_back({first, s.text.substr(begin, s.at - begin)});
        (void)s.skip(',');
    }
    return true;
}

// {"data": [...]}: the array of a file that is one object and no record itself. The scanner is then at its bracket.
bool find_wrapped(Scanner& s) {
    constexpr std::string_view wrappers[] = {"data", "rows", "examples", "train", "items", "records", "dataset"},
                               forms[] = {"messages", "conversations", "instruction", "prompt",
                                          "question", "input",         "query",       "text"};
    const auto among = [](const auto& names, std::string_view key) {
        return std::find(std::begin(names), std::end(names), key) != std::end(names);
    };
    std::optional<Scanner> found;
    Scanner at = s;
    if (!at.skip('{')) return false;
    do {
        at.skip_blanks();
        const size_t begin = at.at;
        if (at.ended() || at.text[begin] != '"' || !at.skip_value()) break;
        const std::string_view key = at.text.substr(begin + 1, at.at - begin - 2);
        if (among(forms, key) || !at.skip(':')) return false;
        at.skip_blanks();
        Scanner inside = at;
        if (!found && among(wrappers, key) && inside.skip('[') && inside.skip('{')) found.emplace(at);
    } while (at.skip_value() && at.skip(','));
    if (!found) return false;
    s.at = found->at;
    s.line = found->line;
    return true;
}

}    // namespace record_files_room

std::string dataset_file(const std::string& path, const std::string& split) {
    if (!is_folder(path)) {
        if (!exists(path)) fail(Errc::io, "dataset ", path, ": no such file or folder");
        if (!split.empty() && split != "train")
            fail(Errc::argument, "dataset ", path, ": a split (\"", split,
                 "\") can be chosen of a folder only; use Dataset::split()");
        return path;
    }
    std::vector<std::string> names{split.empty() ? "train" : split};
    if (split == "valid" || split == "validation") names = {"valid", "validation", "val", "dev", "eval"};
    for (const std::string& name : names)
        for (const char* suffix : {".jsonl", ".json", ".csv", ".tsv", ".txt"})
            if (const std::string file = path + "/" + name + suffix; exists(file)) return file;
    fail(Errc::io, "dataset ", path, ": the folder has no ", names[0],
         ".jsonl (nor .json, .csv, .txt); give one of its files");
}

std::vector<Record> split_records(std::string_view text, const std::string& path) {
    using namespace record_files_room;
    Scanner s{text, path};
    s.skip_blanks();
    if (s.ended()) fail(Errc::format, "dataset ", path, ": the file is empty");
    if (path.ends_with(".csv") || path.ends_with(".tsv")) return split_table(text, path);
    const bool array = text[s.at] == '[';
    if (!array) {
        std::vector<Record> records;
        Scanner first = s;
        const bool one_line = first.skip_value() && first.line == s.line && (first.skip_blanks(), !first.ended());
        if (one_line || !values(s, records)) return lines(text.substr(s.at), s.line);
        if (records.size() != 1 || !find_wrapped(s)) return records;
    }
    ++s.at;
    std::vector<Record> records = elements(s);
    s.skip_blanks();
    if (array && !s.ended()) fail(Errc::format, "dataset ", path, ":", s.line, ": text after the end of the array");
    return records;
}

}
}    // namespace qlora
