// record_table.cpp - comma-separated values (RFC 4180): the first row names the columns, each other row is a record of
// strings. A field in quotes may hold separators, line breaks and doubled quotes. Tabs and semicolons separate too,
// where the first row has them: spreadsheets of many countries write those.
#include "src/base/stop.h"
#include "src/run/records.h"

#include <algorithm>

namespace qlora {
inline namespace QLORA_ABI {
namespace record_table_room {

struct Table {
    std::string_view text;
    const std::string& path;
    char separator = ',';
    size_t at = 0;
    int64_t line = 1;

    bool ended() const { return at >= text.size(); }

    std::string quoted() {
        const int64_t first = line;
        std::string field;
        for (++at; !ended(); ++at) {
            if (text[at] == '"') {
                if (at + 1 < text.size() && text[at + 1] == '"') ++at;
                else break;
            }
            line += text[at] == '\n';
            field += text[at];
        }
        if (ended())
            fail(Errc::format, "dataset ", path, ":", first,
                 ": a field in quotes does not end; double the "
                 "quotes inside of fields");
        ++at;
        if (!ended() && text[at] != separator && text[at] != '\n' && text[at] != '\r')
            fail(Errc::format, "dataset ", path, ":", line,
                 ": text behind the closing quote of a field; double the "
                 "quotes inside of fields");
        return field;
    }
    std::string plain() {
        const size_t begin = at;
        while (!ended() && text[at] != separator && text[at] != '\n') ++at;
        std::string field(text.substr(begin, at - begin));
        if (field.ends_with('\r') && (ended() || text[at] == '\n')) field.pop_back();
        return field;
    }
    std::vector<std::string> row() {
        std::vector<std::string> fields;
        while (true) {
            fields.push_back(!ended() && text[at] == '"' ? quoted() : plain());
            if (!ended() && text[at] == separator) {
                ++at;
                continue;
            }
            if (!ended() && text[at] == '\r') ++at;
            if (!ended() && text[at] == '\n') ++at, ++line;
            return fields;
        }
    }
};

// What the first row has most of.
char separator_of(std::string_view text, const std::string& path) {
    if (path.ends_with(".tsv")) return '\t';
    int64_t counts[3] = {};
    constexpr std::string_view candidates = ",;\t";
    bool quoted = false;
    for (const char c : text.substr(0, text.find('\n'))) {
        quoted ^= c == '"';
        if (!quoted && candidates.find(c) != candidates.npos) ++counts[candidates.find(c)];
    }
    return candidates[size_t(std::max_element(counts, counts + 3) - counts)];
}

}    // namespace record_table_room

std::vector<Record> split_table(std::string_view text, const std::string& path) {
    record_table_room::Table table{text, path, record_table_room::separator_of(text, path)};
    const std::vector<std::string> names = table.row();
    for (size_t i = 0; i < names.size(); ++i) {
        if (names[i].empty()) continue;    // the number of a row, as pandas writes it
        if (std::find(names.begin(), names.begin() + int64_t(i), names[i]) != names.begin() + int64_t(i))
            fail(Errc::format, "dataset ", path, ":1: two columns are called ", names[i]);
    }
    std::vector<Record> records;
    while (!table.ended()) {
        check_stop();
        Record& record = records.emplace_back(Record{table.line, {}});
        const std::vector<std::string> fields = table.row();
        if (fields.size() == 1 && fields[0].empty() && names.size() > 1) {    // a blank line
            records.pop_back();
            continue;
        }
        if (fields.size() != names.size())
            fail(Errc::format, "dataset ", path, ":", record.line, ": ", fields.size(),
                 " fields, but the first row names ", names.size(),
                 " columns; put fields that hold a separator in quotes");
        for (size_t i = 0; i < names.size(); ++i)
            if (!names[i].empty()) record.row.set(names[i], fields[i]);
    }
    return records;
}

}
}    // namespace qlora
