// records.h - the first half of loading training data: files to records, records to dialogues or texts.
#pragma once
#include "src/model/dialogue.h"

namespace qlora { inline namespace QLORA_ABI {

struct Record {
    int64_t line = 0;
    std::string_view text;                             // JSON; empty: the record is a row of a table
    Json row{};
};

std::string dataset_file(const std::string& path, const std::string& split);           // a folder's file of the split
// A file's bytes as UTF-8 without a byte-order mark; bytes of something else than text are refused by its name.
std::string dataset_text(std::string bytes, const std::string& path);
// Lines, the elements of an array, values one after another, or the rows of a table (record_table.cpp); by the file's
// name and what it begins with.
std::vector<Record> split_records(std::string_view text, const std::string& path);
std::vector<Record> split_table(std::string_view text, const std::string& path);
// Messages of trees, one a record (OASST's flat files: message_id, parent_id), to a record for each tree; others as
// they are. A reply whose parent is not there stays, and is refused when it is read.
std::vector<Record> gather_trees(std::vector<Record> records, const std::string& path);

struct MessageFacts {                                  // what a row says about a message that is not for the template
    bool masked = false;                               // weight: 0, train: false, loss: false or masked: true
    std::string call_text;    // a tool call as the row spells it, where it is all of the message's text
    std::vector<std::string> arguments;    // of each tool call, where the row has them as JSON text: that text
};
struct Conversation {
    Json messages{Json::Array()};                      // role and content, and every other key as the row has it
    std::vector<MessageFacts> facts;                   // one a message
    std::vector<std::string> unused;                   // as in Example, of the messages
    void add(std::string role, Json content) {
        messages.push(Json().set("role", std::move(role)).set("content", std::move(content)));
        facts.emplace_back();
    }
    void append(Conversation more);
    void put_system_first(std::string system);         // unless it is empty, or there is one
};
struct Example {
    std::string format;                                // as in DatasetInfo
    bool is_text = false;                              // text: else a dialogue
    std::string text;
    Conversation chat;
    Json variables;    // an object, what the template gets beside the messages: tools, documents, chat_template_kwargs
    std::string prompt, completion;    // the dialogue without a chat template; lists of messages have none
    bool plain = false;                                // prompt and completion are set
    std::vector<std::string> unused;    // keys of the record that are not for the template and that nothing here reads
};

// What a record holds: one example in most forms, as many as it has instances in another.
std::vector<Example> read_record(const Json& record, const std::string& where);
// The record with its columns under the names that the forms have (DatasetOptions::columns). Of the others only what
// dialogues get beside their messages stays; the rest is named in `unused`.
using ColumnNames = std::vector<std::pair<std::string, std::string>>;
Json renamed_columns(const Json& record, const ColumnNames&, std::vector<std::string>& unused,
                     const std::string& where);
// A list of messages with role and content, or with from and value (messages.cpp).
Conversation read_messages(const Json& list, const char* role_key, const char* content_key, const std::string& where);
// A JSON value that may stand there as text: lists and objects are often stored that way.
Json decoded(const Json& value, const std::string& where);

}}  // namespace qlora
