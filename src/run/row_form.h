// row_form.h - the forms that a record of training data may have: a table, and a small room for each.
#pragma once
#include "src/run/records.h"

#include <algorithm>

namespace qlora {
inline namespace QLORA_ABI {

// One record. Every key that a form reads is asked for by name; what is left over at the end is named to the user.
struct RecordReader {
    const Json& record;
    const std::string& where;
    std::vector<std::string_view> asked = {};

    const Json* find(std::string_view key) {    // null where the record has null, too
        const Json* value = record.find(key);
        asked.push_back(key);
        return value && !value->is_null() ? value : nullptr;
    }
    std::string string(std::string_view key) {
        const Json* value = find(key);
        return value ? value->as_string(at(key)) : std::string();
    }
    std::string answer(std::string_view key) {    // tables of tasks have numbers and truths there too
        const Json* value = find(key);
        if (value && (value->is_number() || value->is_bool())) return value->dump();
        return value ? value->as_string(at(key)) : std::string();
    }
    std::string at(std::string_view key) const { return str(where, ": ", key); }
    bool has(std::string_view key) const { return record.find(key) != nullptr; }
    bool has_text(std::string_view key) const { return record.find(key) && record.find(key)->is_string(); }
    std::vector<std::string> unused() const;
};

struct RowForm {
    const char* keys;    // as the message about an unknown record lists them
    bool (*fits)(const RecordReader&);
    std::vector<Example> (*read)(RecordReader&);
};

// form_dialogue.cpp
std::vector<Example> read_dialogue_row(RecordReader&);
void read_variables(RecordReader&, Example&);    // what a dialogue's template gets beside the messages
// form_pair.cpp
bool fits_pair(const RecordReader&);
std::vector<Example> read_pair(RecordReader&);
// form_preference.cpp
bool fits_preference(const RecordReader&);
std::vector<Example> read_preference(RecordReader&);
// form_instruction.cpp
std::vector<Example> read_alpaca(RecordReader&);
std::vector<Example> read_instances(RecordReader&);
// form_speakers.cpp
bool fits_speakers(const RecordReader&);
std::vector<Example> read_speakers(RecordReader&);
// form_tree.cpp
bool fits_tree(const RecordReader&);
std::vector<Example> read_tree(RecordReader&);

}
}    // namespace qlora
