// record_files.cpp - which file a data set is, and where its records begin and end: each is parsed alone, and errors
// name its line.
#include "src/base/file.h"
#include "src/base/stop.h"
#include "src/run/records.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

std::string dataset_file(const std::string& path, const std::string& split) {
    if (!is_folder(path)) {
        if (!exists(path)) fail(Errc::io, "dataset ", path, ": no such file or folder");
        if (!split.empty() && split != "train")
            fail(Errc::argument, "dataset ", path, ": a split (\"", split,
                 "\") can be chosen of a folder only; use Dataset::split()");
        for (const char* other : {".parquet", ".csv", ".tsv", ".arrow", ".gz", ".zst"})
            if (path.ends_with(other))
                fail(Errc::unsupported, "dataset ", path, ": ", other,
                     " is not read; convert it to .jsonl, one JSON object a line");
        return path;
    }
    std::vector<std::string> names{split.empty() ? "train" : split};
    if (split == "valid" || split == "validation") names = {"valid", "validation", "val", "dev", "eval"};
    for (const std::string& name : names)
        for (const char* suffix : {".jsonl", ".json", ".txt"})
            if (const std::string file = path + "/" + name + suffix; exists(file)) return file;
    fail(Errc::io, "dataset ", path, ": the folder has no ", names[0], ".jsonl (nor .json, .txt)");
}

std::vector<Record> split_records(std::string_view text, const std::string& path) {
    // Windows editors begin files with a byte-order mark
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    std::vector<Record> records;
    int64_t line = 1;
    size_t at = 0;
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
    while (at < text.size() && blank(text[at])) line += text[at++] == '\n';
    if (at == text.size()) fail(Errc::format, "dataset ", path, ": the file is empty");
    if (text[at] != '[') {
        while (at < text.size()) {
            check_stop();
            const size_t end = std::min(text.find('\n', at), text.size());
            const std::string_view content = text.substr(at, end - at);
            if (!std::all_of(content.begin(), content.end(), blank)) records.push_back({line, content});
            at = end + 1;
            ++line;
        }
        return records;
    }
    // An array: find the border of every element, so that each is parsed alone and errors name its line.
    ++at;
    while (true) {
        check_stop();
        while (at < text.size() && blank(text[at])) line += text[at++] == '\n';
        if (at < text.size() && text[at] == ']' && records.empty()) return records;
        const size_t begin = at;
        const int64_t first_line = line;
        int64_t depth = 0;
        bool quoted = false;
        for (; at < text.size(); ++at) {
            const char c = text[at];
            if (c == '\n') ++line;
            if (quoted) {
                if (c == '\\') ++at;
                else if (c == '"') quoted = false;
            } else if (c == '"') quoted = true;
            else if (c == '{' || c == '[') ++depth;
            else if ((c == '}' || c == ']') && depth > 0) --depth;
            else if (depth == 0 && (c == ',' || c == ']')) break;
        }
        if (at >= text.size())
            fail(Errc::format, "dataset ", path, ":", first_line,
                 ": the array ends inside this record; the file is cut off");
        records.push_back({first_line, text.substr(begin, at - begin)});
        if (text[at++] == ']') break;
    }
    while (at < text.size() && blank(text[at])) line += text[at++] == '\n';
    if (at < text.size()) fail(Errc::format, "dataset ", path, ":", line, ": text after the end of the array");
    return records;
}

}}  // namespace qlora
