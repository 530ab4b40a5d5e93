// records.cpp - the table of the forms that a record may have; the first that fits reads it.
#include "src/run/row_form.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace records_room {

std::vector<Example> read_text(RecordReader& r) {
    Example e;
    e.format = "text";
    e.is_text = true;
    e.text = r.string("text");
    return {e};
}

[[noreturn]] std::vector<Example> refuse_orphan(RecordReader& r) {
    fail(Errc::format, r.where,
         ": a message (message_id, parent_id) that belongs to no tree: its parent is not in the "
         "file, or its message_id is there twice; add the parent, or leave such messages out");
}

std::string keys_of(const Json& record) {
    std::string keys;
    for (const Json::Member& m : record.object()) keys += (keys.empty() ? "" : ", ") + m.first;
    return keys;
}

// A whole table in one record, column by column: {"a": ["x"], "b": ["y"]} or {"a": {"0": "x"}, "b": {"0": "y"}}.
bool is_columns(const RecordReader& r) {
    const auto many = [](const Json& v) { return v.is_array() ? v.array().size() : v.object().size(); };
    const auto cell = [](const Json& v) { return !v.is_array() && !v.is_object(); };
    const Json::Object& members = r.record.object();
    return members.size() > 1 && std::all_of(members.begin(), members.end(), [&](const Json::Member& m) {
               const Json& v = m.second;
               if (v.is_array() ? v.array().empty() : v.object().empty()) return false;
               return many(v) == many(members[0].second) && cell(v.is_array() ? v.array()[0] : v.object()[0].second);
           });
}

[[noreturn]] std::vector<Example> refuse_columns(RecordReader& r) {
    fail(Errc::format, r.where, ": the record is a whole table, column by column (", keys_of(r.record),
         "); write it row by row, one JSON object a line (pandas: orient=\"records\", lines=True)");
}

constexpr RowForm forms[] = {
    {nullptr, is_columns, refuse_columns},
    {nullptr, fits_speakers, read_speakers},
    {"{prompt, chosen}", fits_preference, read_preference},
    {"{messages}, {conversations}",
     [](const RecordReader& r) { return r.has("messages") || r.has("conversations") || r.has("conversation"); },
     read_dialogue_row},
    {"{prompt: {text, replies}}", fits_tree, read_tree},
    {nullptr, [](const RecordReader& r) { return r.has("message_id") && r.has("parent_id"); }, refuse_orphan},
    {"{instruction, input, output}", [](const RecordReader& r) { return r.has("instruction") && !r.has("instances"); },
     read_alpaca},
    {"{instruction, instances}", [](const RecordReader& r) { return r.has("instances"); }, read_instances},
    {"{prompt, completion or response}, {question, answer}, {query, response}, {input, output}, {text, label}",
     fits_pair, read_pair},
    {"{text}", [](const RecordReader& r) { return r.has("text"); }, read_text},
};

[[noreturn]] void refuse(const Json& record, const std::string& where) {
    std::string known;
    for (const RowForm& form : forms)
        if (form.keys) known += str(known.empty() ? "" : ", ", form.keys);
    fail(Errc::format, where, ": a record with the keys ", keys_of(record), " is none of the formats read: ", known,
         "; say which column is what: columns question=prompt,answer=completion");
}

}  // namespace records_room

std::vector<std::string> RecordReader::unused() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : record.object()) {
        const bool empty = value.is_null() || (value.is_string() && value.string().empty()) ||
                           (value.is_array() && value.array().empty());
        if (!empty && std::find(asked.begin(), asked.end(), key) == asked.end()) keys.push_back(key);
    }
    return keys;
}

std::vector<Example> read_record(const Json& outer, const std::string& where) {
    // the answer of a service that serves rows of tables
    const Json* inner = outer.find("row_idx") ? outer.find("row") : nullptr;
    const Json& record = inner && inner->is_object() ? *inner : outer;
    if (!record.is_object()) fail(Errc::format, where, ": a record must be a JSON object");
    RecordReader r{record, where};
    const RowForm* form = std::find_if(std::begin(records_room::forms), std::end(records_room::forms),
                                       [&](const RowForm& f) { return f.fits(r); });
    if (form == std::end(records_room::forms)) records_room::refuse(record, where);
    std::vector<Example> examples = form->read(r);
    if (examples.empty()) return examples;
    Example& first = examples.front();
    first.unused = r.unused();
    first.unused.insert(first.unused.end(), first.chat.unused.begin(), first.chat.unused.end());
    return examples;
}

Json renamed_columns(const Json& record, const ColumnNames& names, std::vector<std::string>& unused,
                     const std::string& where) {
    if (!record.is_object()) fail(Errc::format, where, ": a record must be a JSON object");
    constexpr std::string_view beside[] = {"system", "tools", "documents", "chat_template_kwargs"};
    Json out{Json::Object()};
    for (const auto& [theirs, ours] : names) {
        const Json* value = record.find(theirs);
        if (!value)
            fail(Errc::format, where, ": there is no column ", theirs, "; the record has ",
                 records_room::keys_of(record));
        if (!ours.empty()) out.set(ours, *value);
    }
    for (const auto& [key, value] : record.object()) {
        const auto same = [&k = key](const auto& name) { return name.first == k; };
        if (std::find_if(names.begin(), names.end(), same) != names.end() || out.find(key)) continue;
        if (std::find(std::begin(beside), std::end(beside), key) != std::end(beside)) out.set(key, value);
        else if (!value.is_null()) unused.push_back(key);
    }
    return out;
}

}
}    // namespace qlora
