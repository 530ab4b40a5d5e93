// rows.cpp - see rows.h.
//
// Dialogues are printed by the chat template, in which message text holds no control tokens. Text that stands in the
// file as the model is to read it does hold them: {text} rows, .txt files, and prompts that hold the template's own
// marks, which are not printed a second time.
#include "src/run/rows.h"

#include <algorithm>

namespace qlora {
inline namespace QLORA_ABI {
namespace rows_room {

bool ends_reply(const TokenizerImpl& t, Token id) {
    return std::find(t.end_of_reply.begin(), t.end_of_reply.end(), id) != t.end_of_reply.end();
}

// Ends with an end token, if only white space follows it?
bool is_ended(const TokenizerImpl& t, const Tokens& tokens) {
    for (size_t i = tokens.size(); i > 0 && tokens.size() - i < 4; --i) {
        if (ends_reply(t, tokens[i - 1])) return true;
        const std::string piece = t.piece(tokens[i - 1], true);
        if (piece.find_first_not_of(" \t\r\n") != piece.npos) return false;
    }
    return false;
}

void keep_last_run(std::vector<uint8_t>& trained) {
    size_t end = trained.size();
    while (end > 0 && !trained[end - 1]) --end;
    size_t begin = end;
    while (begin > 0 && trained[begin - 1]) --begin;
    std::fill(trained.begin(), trained.begin() + int64_t(begin), uint8_t(0));
}

std::string_view text_of(const Json& message) {
    const Json* content = message.find("content");
    return content && content->is_string() ? std::string_view(content->string()) : std::string_view();
}

// Models and templates name the same thing differently; a row with one name serves a template that reads another.
void rename_reasoning(Json& messages, const DialogueRenderer& renderer) {
    constexpr const char* names[] = {"reasoning_content", "thinking", "reasoning"};
    const auto reads = [&](const char* name) {
        return renderer.knows(str(".", name)) || renderer.knows(str("'", name, "'")) ||
               renderer.knows(str("\"", name, "\""));
    };
    const auto known = std::find_if(std::begin(names), std::end(names), reads);
    if (known == std::end(names)) return;
    for (Json& m : messages.array())
        for (const char* name : names)
            if (m.find(name) && !m.find(*known) && !reads(name))
                for (Json::Member& member : m.object())
                    if (member.first == name) member.first = *known;
}

}  // namespace rows_room

RowBuilder::RowBuilder(const TokenizerImpl& tokenizer, const DatasetOptions& options)
    : tokenizer_(tokenizer), options_(options), renderer_(tokenizer) {}

const TurnMarks& RowBuilder::marks() {
    if (!marks_) marks_ = turn_marks_of(tokenizer_, renderer_);
    return *marks_;
}

void RowBuilder::use(const std::string& name, bool used) {
    auto found = std::find_if(uses_.begin(), uses_.end(), [&](const Use& u) { return u.name == name; });
    if (found == uses_.end()) found = uses_.insert(uses_.end(), {name});
    ++found->count;
    found->used |= used;
}

DatasetInfo RowBuilder::info() {
    for (const Use& u : uses_)
        if (!u.used) info_.unused.emplace_back(u.name, u.count);
    return info_;
}

void RowBuilder::note(std::vector<std::string>& places) const {
    if (!place_.empty() && places.size() < most_places) places.push_back(place_);
}

void RowBuilder::drop() {
    ++info_.dropped;
    note(info_.dropped_at);
}

void RowBuilder::add_bad(const std::string& what) {
    ++info_.bad;
    if (info_.bad_at.size() < most_places) info_.bad_at.push_back(what);
}

void RowBuilder::add_row(std::span<const Token> tokens, std::span<const uint8_t> trained, const TurnCounts& turns) {
    const int64_t targets = trained_targets(trained);
    if (targets == 0) return drop();
    rows_.tokens.insert(rows_.tokens.end(), tokens.begin(), tokens.end());
    rows_.trained.insert(rows_.trained.end(), trained.begin(), trained.end());
    rows_.begin.push_back(int64_t(rows_.tokens.size()));
    rows_.turns.push_back(turns);
    ++info_.rows;
    info_.tokens += int64_t(tokens.size());
    info_.trained_tokens += targets;
    info_.longest = std::max(info_.longest, int64_t(tokens.size()));
}

void RowBuilder::add_whole(Row row) {
    if (int64_t(row.tokens.size()) > options_.context) {
        if (options_.long_rows != LongRows::cut) {
            note(info_.long_at);
            const bool split = options_.long_rows == LongRows::split;
            ++(split ? info_.long_split : info_.long_dropped);
            return split ? add_pieces(row.tokens, row.trained, row.turns) : void();
        }
        ++info_.truncated;
        note(info_.truncated_at);
        row.tokens.resize(size_t(options_.context));
        row.trained.resize(size_t(options_.context));
    }
    add_row(row.tokens, row.trained, row.turns);
}

void RowBuilder::add_tokens(std::span<const Token> tokens, std::span<const uint8_t> trained) {
    Row row{{tokens.begin(), tokens.end()}, {}, {}};
    for (const uint8_t flag : trained) row.trained.push_back(flag != 0);
    add_whole(std::move(row));
}

// The last token of a piece is the first of the next, so that every token is predicted once. Pieces without a trained
// token are none.
void RowBuilder::add_pieces(std::span<const Token> tokens, std::span<const uint8_t> trained, const TurnCounts& turns) {
    const int64_t count = int64_t(tokens.size()), before = info_.rows;
    for (int64_t at = 0; at + 1 < count; at += options_.context - 1) {
        const size_t from = size_t(at), length = size_t(std::min(options_.context, count - at));
        if (trained_targets(trained.subspan(from, length)) > 0)
            add_row(tokens.subspan(from, length), trained.subspan(from, length),
                    info_.rows == before ? turns : TurnCounts{});
    }
    if (info_.rows == before) drop();
}

// Cut into pieces. The loss is on the assistant's turns where the template's marks are found, on all tokens otherwise.
void RowBuilder::add_text(std::string_view text) {
    const bool control = reads_control(), marked = control && options_.loss != Loss::all && marks().in(text);
    MarkedText m;
    if (marked) m = encode_marked(tokenizer_, marks(), text, tokenizer_.add_bos);
    else m.tokens = encode_text(tokenizer_, text, tokenizer_.add_bos, control);
    const TurnCounts turns{m.turns, m.trained_turns};
    if (control) info_.control_tokens += tokenizer_.count_control(text);
    else info_.spelled += tokenizer_.count_control(text);
    if (marked) ++info_.templated;
    if (marked && options_.loss == Loss::completion) rows_room::keep_last_run(m.trained);
    if (!marked) m.trained.assign(m.tokens.size(), 1);
    // a question at the end is not for us to end
    const bool open = !marked || (!m.trained.empty() && m.trained.back());
    if (open && tokenizer_.eos >= 0 && !text.empty() && !rows_room::is_ended(tokenizer_, m.tokens)) {
        m.tokens.push_back(tokenizer_.eos);
        m.trained.push_back(1);
    }
    if (m.tokens.size() < 2 || text.empty()) return drop();
    add_pieces(m.tokens, m.trained, turns);
}

// Templates without the role: see DialogueRenderer::takes_system().
void RowBuilder::apply_system_rule(Example& e) {
    Json::Array& messages = e.chat.messages.array();
    if (renderer_.takes_system() || std::none_of(messages.begin(), messages.end(), is_system)) return;
    if (options_.system == SystemRule::error)
        fail(Errc::format,
             "the chat template has no system role; put the system text into the first question, or allow "
             "that (SystemRule::merge)");
    if (options_.system == SystemRule::merge) {
        ++info_.merged_systems;
        return;
    }
    for (size_t i = messages.size(); i-- > 0;) {
        if (!is_system(messages[i])) continue;
        use("system text", false);
        messages.erase(messages.begin() + int64_t(i));
        e.chat.facts.erase(e.chat.facts.begin() + int64_t(i));
    }
}

void RowBuilder::add(Example& e) {
    for (const std::string& key : e.unused) use(key, false);
    if (e.is_text) return add_text(e.text);
    apply_system_rule(e);
    // alpaca's layout is ours
    const bool marked = e.format == "prompt/completion" && e.plain && reads_control() && marks().in(e.prompt);
    const auto& messages = e.chat.messages.array();
    const bool answered = e.plain
                              ? !e.completion.empty()
                              : std::any_of(messages.begin(), messages.end(), [](const Json& m) {
                                    return is_assistant(m) && (!rows_room::text_of(m).empty() || m.find("tool_calls"));
                                });
    if (!answered) drop();
    else if (marked || (e.plain && !renderer_.own_template())) add_prompt(e, marked);
    else add_whole(printed(e));
}

// The completion behind the prompt as both stand in the row. Where the row is no template's text, its control tokens
// are text.
void RowBuilder::add_prompt(const Example& e, bool marked) {
    const std::string text = e.prompt + e.completion;
    const bool control = marked || options_.special == Special::tokens;
    MarkedText m = encode_after(tokenizer_, text, e.prompt.size(), tokenizer_.add_bos, control);
    (control ? info_.control_tokens : info_.spelled) += tokenizer_.count_control(text);
    info_.templated += marked;
    if (tokenizer_.eos >= 0 && !rows_room::is_ended(tokenizer_, m.tokens)) {
        m.tokens.push_back(tokenizer_.eos);
        m.trained.push_back(1);
    }
    if (options_.loss == Loss::all) std::fill(m.trained.begin(), m.trained.end(), uint8_t(1));
    add_whole({std::move(m.tokens), std::move(m.trained), {1, 1}});
}

// A template may refuse calls that have no ids; then they get some.
TrainingText RowBuilder::rendered(Example& e) {
    const bool has_tools = e.variables.find("tools") ||
                           std::any_of(e.chat.messages.array().begin(), e.chat.messages.array().end(),
                                       [](const Json& m) { return m.find("tool_calls"); });
    if (has_tools && !form_) form_ = tool_form_of(renderer_);
    rows_room::rename_reasoning(e.chat.messages, renderer_);
    if (has_tools && !form_->calls)
        for (const Json& m : e.chat.messages.array())
            if (m.find("tool_calls")) use("message.tool_calls, printed as text", false);
    if (has_tools) apply_tool_form(e, *form_, false);
    const bool literal = options_.special != Special::tokens;
    try {
        return renderer_.train({e.chat.messages, e.variables}, literal);
    } catch (const Error&) {
        if (!has_tools) throw;
        Example with_ids = e;
        apply_tool_form(with_ids, *form_, true);
        if (with_ids.chat.messages.dump() == e.chat.messages.dump()) throw;
        e = std::move(with_ids);
    }
    return renderer_.train({e.chat.messages, e.variables}, literal);
}

// What the row has and the template never asked for, and texts that it drops.
void RowBuilder::count_uses(const Example& e, const TrainingText& r) {
    const auto among = [](const std::vector<std::string>& names, const std::string& name) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    const Json::Array& messages = e.chat.messages.array();
    for (const Json& m : messages)
        for (const auto& [key, value] : m.object())
            if (key != "role" && key != "content") use("message." + key, among(r.read_keys, key));
    if (e.variables.is_object())
        for (const auto& [name, value] : e.variables.object()) use(name, among(r.read_variables, name));
    for (const Turn& turn : r.turns) {
        const Json& m = messages[size_t(turn.message)];
        if (turn.assistant || turn.begin != turn.end) continue;
        const std::string_view text = rows_room::text_of(m);
        const size_t from = text.find_first_not_of(" \t\r\n"), to = text.find_last_not_of(" \t\r\n");
        // A template may print it in the turn of another.
        if (from != text.npos && r.text.find(text.substr(from, to + 1 - from)) == std::string::npos)
            use(m.find("role")->string() + " text", false);
    }
    const bool control = options_.special == Special::tokens;
    for (const Json& m : messages)
        (control ? info_.control_tokens : info_.spelled) += tokenizer_.count_control(rows_room::text_of(m));
}

// Masks of the row, and the counts of its turns. An assistant's turn that is not trained without anybody saying so is
// an error.
void RowBuilder::count_turns(const Example& e, const TrainingText& r, Row& row) {
    for (const Turn& turn : r.turns) {
        if (!turn.assistant) continue;
        ++row.turns.turns;
        if (e.chat.facts[size_t(turn.message)].masked) {
            ++row.turns.excluded;
            std::fill(row.trained.begin() + turn.first, row.trained.begin() + turn.last, uint8_t(0));
        } else if (turn.begin == turn.end) ++row.turns.silent;
        else if (turn.trained == 0 && r.marked) ++row.turns.excluded;  // by the template's {% generation %} blocks
        else if (turn.trained > 0)
            ++(turn.first < options_.context || options_.long_rows == LongRows::split ? row.turns.trained
                                                                                      : row.turns.cut);
        else
            fail(Errc::format, "message ", turn.message + 1, " of ", r.turns.size(),
                 " (assistant) gets no trained token: the chat template prints it without an answer; "
                 "exclude it with \"train\": false, or change the row");
    }
}

RowBuilder::Row RowBuilder::printed(Example& e) {
    TrainingText r = rendered(e);
    Row row{std::move(r.tokens), std::move(r.trained), {}};
    // A reply whose turn nothing closes would teach the model never to stop.
    if (!row.trained.empty() && row.trained.back() && !rows_room::ends_reply(tokenizer_, row.tokens.back()) &&
        tokenizer_.eos >= 0) {
        row.tokens.push_back(tokenizer_.eos);
        row.trained.push_back(1);
    }
    if (options_.loss == Loss::all) std::fill(row.trained.begin(), row.trained.end(), uint8_t(1));
    count_turns(e, r, row);
    count_uses(e, r);
    if (options_.loss == Loss::completion) {           // the last turn alone; where the row excludes that, none
        const auto last = std::find_if(r.turns.rbegin(), r.turns.rend(), [](const Turn& t) { return t.assistant; });
        if (last != r.turns.rend()) std::fill(row.trained.begin(), row.trained.begin() + last->first, uint8_t(0));
    }
    return row;
}

}
}    // namespace qlora
