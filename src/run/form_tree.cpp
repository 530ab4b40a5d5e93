// form_tree.cpp - OASST's trees of messages, {"prompt": {"text", "role", "replies": [{...}]}}: the dialogue of the
// replies that people ranked first at every level, which is what QLoRA was trained on. Flat files have the same
// messages one a record, with parent_id where each belongs: gather_trees makes trees of them.
#include "src/run/row_form.h"

#include <map>

namespace qlora {
inline namespace QLORA_ABI {
namespace form_tree_room {

constexpr size_t most_levels = 1000;    // the parser allows fewer

bool says(const Json& message, const char* key, bool value) {
    const Json* v = message.find(key);
    return v && v->is_bool() && v->boolean() == value;
}

bool comes_before(const Json& reply, const Json* best) {
    const auto place = [](const Json& message) {
        const Json* rank = message.find("rank");
        return rank && rank->is_number() ? rank->number() : double(INT64_MAX);
    };
    if (says(reply, "deleted", true) || says(reply, "review_result", false)) return false;
    return !best || place(reply) < place(*best);
}

// The reply of the lowest rank; those without one are behind those with one, in the order of the file.
const Json* best_reply(const Json& message) {
    const Json* replies = message.find("replies");
    const Json* best = nullptr;
    if (!replies) return nullptr;
    for (const Json& reply : replies->array())
        if (comes_before(reply, best)) best = &reply;
    return best;
}

// Of a flat file.
struct FlatMessage {
    size_t record;
    Json row;
    std::vector<size_t> replies = {};
};

// The tree that begins there, or what read_tree sees of it: one branch.
Json branch(const std::vector<FlatMessage>& messages, size_t root, const std::string& where) {
    std::vector<const Json*> path{&messages[root].row};
    for (size_t at = root, next = root; path.size() <= most_levels; at = next) {
        const Json* best = nullptr;
        for (const size_t reply : messages[at].replies)
            if (comes_before(messages[reply].row, best)) best = &messages[reply].row, next = reply;
        if (!best) break;
        path.push_back(best);
    }
    if (path.size() > most_levels) fail(Errc::format, where, ": a tree of more than ", most_levels, " levels");
    Json inner;
    for (size_t level = path.size(); level-- > 0;) {
        Json message;
        for (const char* key : {"role", "text"})
            if (const Json* value = path[level]->find(key)) message.set(key, *value);
        Json replies{Json::Array()};
        if (!inner.is_null()) replies.push(std::move(inner));
        inner = std::move(message.set("replies", std::move(replies)));
    }
    return Json().set("prompt", std::move(inner));
}

const Json* id_of(const Json& row, const char* key) {
    const Json* id = row.is_object() ? row.find(key) : nullptr;
    return id && id->is_string() && !id->string().empty() ? id : nullptr;
}

bool is_flat(const std::vector<Record>& records) {
    if (records.empty()) return false;
    const Record& first = records[0];
    if (first.text.empty()) return first.row.find("message_id") && first.row.find("parent_id");
    for (const char* key : {"\"message_id\"", "\"parent_id\"", "\"text\""})
        if (first.text.find(key) == first.text.npos) return false;
    return first.text.find("\"replies\"") == first.text.npos;
}

}    // namespace form_tree_room

bool fits_tree(const RecordReader& r) {
    const Json* prompt = r.record.find("prompt");
    return prompt && prompt->find("text") && prompt->find("replies");
}

std::vector<Example> read_tree(RecordReader& r) {
    for (const char* of_the_tree : {"message_tree_id", "tree_state"}) (void)r.find(of_the_tree);
    Example e;
    e.format = "oasst tree";
    const Json* message = r.find("prompt");
    for (size_t level = 0; message && level < form_tree_room::most_levels; ++level) {
        const std::string where = r.at("prompt");
        RecordReader inner{*message, where};
        const std::string role = inner.string("role");
        if (role != "prompter" && role != "assistant")
            fail(Errc::format, where, ": role \"", role, "\" of a message of a tree is neither prompter nor assistant");
        e.chat.add(role == "assistant" ? role : "user", inner.string("text"));
        message = form_tree_room::best_reply(*message);
    }
    Json::Array& said = e.chat.messages.array();
    if (said.size() > 1 && said.back().find("role")->string() == "user") {    // nobody answered it
        said.pop_back();
        e.chat.facts.pop_back();
    }
    return {e};
}

std::vector<Record> gather_trees(std::vector<Record> records, const std::string& path) {
    using namespace form_tree_room;
    if (!is_flat(records)) return records;
    std::vector<FlatMessage> messages;
    std::map<std::string, size_t> known;    // id -> message
    std::vector<Record> out;                // what is no message is told where it is read
    for (size_t i = 0; i < records.size(); ++i) {
        Json row = records[i].row;
        try {
            if (!records[i].text.empty()) row = Json::parse(records[i].text, "message");
        } catch (const Error&) {}
        const Json* id = id_of(row, "message_id");
        if (!id || !known.emplace(id->string(), messages.size()).second) out.push_back(records[i]);
        else messages.push_back({i, std::move(row)});
    }
    std::vector<size_t> reached;    // roots, then level by level
    for (size_t i = 0; i < messages.size(); ++i) {
        const Json* parent = id_of(messages[i].row, "parent_id");
        const auto found = parent ? known.find(parent->string()) : known.end();
        if (!parent) reached.push_back(i);
        else if (found != known.end()) messages[found->second].replies.push_back(i);
    }
    for (const size_t root : std::vector(reached)) {
        const int64_t line = records[messages[root].record].line;
        out.push_back({line, {}, branch(messages, root, str("dataset ", path, ":", line))});
    }
    for (size_t i = 0; i < reached.size(); ++i) {
        const std::vector<size_t>& replies = messages[reached[i]].replies;
        reached.insert(reached.end(), replies.begin(), replies.end());
    }
    std::sort(reached.begin(), reached.end());
    for (size_t i = 0; i < messages.size(); ++i)
        if (!std::binary_search(reached.begin(), reached.end(), i)) out.push_back(records[messages[i].record]);
    std::stable_sort(out.begin(), out.end(), [](const Record& a, const Record& b) { return a.line < b.line; });
    return out;
}

}
}    // namespace qlora
