// text.cpp - the text side of a model: tokenizers out of any kind of file, and dialogues through the chat template.
#include "src/model/gguf_model.h"

#include <algorithm>
#include <mutex>

namespace qlora::inline v0_1 {

namespace text_room {

bool is_control(const TokenizerImpl& t, Token id) { return t.piece(id, false).empty() && !t.piece(id, true).empty(); }

// tokenizer.json and the files beside it. Newer folders keep the chat template in a file of its own.
std::shared_ptr<const TokenizerImpl> load_folder(const std::string& file, const std::string& folder) {
    const Json tokenizer = Json::parse(read_file(file, int64_t(256) << 20), file);
    Json config;
    const std::string config_file = folder + "/tokenizer_config.json", template_file = folder + "/chat_template.jinja";
    if (exists(config_file)) config = Json::parse(read_file(config_file, int64_t(64) << 20), config_file);
    if (exists(template_file)) config.set("chat_template", Json(read_file(template_file, int64_t(16) << 20)));
    return load_tokenizer_json(tokenizer, config, file);
}

// Parsing a template takes longer than rendering one line of a data set: the last few are kept.
std::shared_ptr<const ChatTemplate> parsed(const TokenizerImpl& t) {
    static std::mutex mutex;
    static std::vector<std::pair<std::string, std::shared_ptr<const ChatTemplate>>> recent;
    const std::string source = !t.chat_template.empty() ? t.chat_template : fallback_chat_template([&](std::string_view token) { return t.id_of(token) >= 0; });
    const std::lock_guard lock(mutex);
    for (const auto& [text, result] : recent)
        if (text == source) return result;
    if (recent.size() >= 8) recent.erase(recent.begin());
    recent.emplace_back(source, ChatTemplate::parse(source, "chat template"));
    return recent.back().second;
}

Json variables(const TokenizerImpl& t, std::span<const Message> messages, bool reply_next) {
    Json list{Json::Array{}};
    for (const Message& m : messages) list.push(Json().set("role", Json(m.role)).set("content", Json(m.content)));
    return Json().set("messages", std::move(list)).set("add_generation_prompt", Json(reply_next)).set("bos_token", Json(t.bos_text)).set("eos_token", Json(t.eos_text));
}

using Span = RenderedTemplate::Span;

size_t common_prefix(const std::string& a, const std::string& b) { return size_t(std::mismatch(a.begin(), a.begin() + std::min(a.size(), b.size()), b.begin()).first - a.begin()); }

// A turn ends with its end-of-turn token: the line end that templates print behind it is not for the model to learn.
int64_t without_line_end(const RenderedTemplate& whole, int64_t begin, int64_t end) {
    int64_t e = end;
    while (e > begin && (whole.text[size_t(e - 1)] == '\n' || whole.text[size_t(e - 1)] == ' ')) --e;
    for (const Span& s : whole.content)
        if (s.begin < end && e <= s.end) return end;   // the blanks belong to the message, or nothing closes it
    return e;
}

// Where the assistant speaks. Templates seldom mark it, so the dialogue is printed again up to each of its turns, once with the
// turn opened and once with it closed: what the second has beyond the first is the turn.
std::vector<Span> assistant_turns(const ChatTemplate& t, const TokenizerImpl& tokenizer, std::span<const Message> messages, const RenderedTemplate& whole) {
    if (whole.marks_generation) return whole.generation;
    std::vector<Span> turns;
    for (size_t i = 0; i < messages.size(); ++i) {
        if (messages[i].role != "assistant") continue;
        const std::string open = i ? t.render(variables(tokenizer, messages.first(i), true)).text : std::string();
        const std::string closed = i + 1 == messages.size() ? whole.text : t.render(variables(tokenizer, messages.first(i + 1), false)).text;
        // Some templates print earlier turns in another way than the last one: only what agrees with the whole counts.
        const int64_t begin = int64_t(std::min(common_prefix(open, whole.text), whole.text.size())), end = int64_t(common_prefix(closed, whole.text));
        const size_t at = messages[i].content.empty() ? std::string::npos : whole.text.find(messages[i].content, turns.empty() ? 0 : size_t(turns.back().end));
        if (end > begin && begin == int64_t(open.size())) turns.push_back({begin, without_line_end(whole, begin, end)});
        else if (at != std::string::npos) turns.push_back({int64_t(at), int64_t(at + messages[i].content.size())});
    }
    return turns;
}

// The byte where each token ends in text, as far as the pieces spell it; empty when they do not (a normalizer changed the text).
std::vector<int64_t> token_ends(const TokenizerImpl& t, const std::string& text, const Tokens& tokens) {
    std::vector<int64_t> ends;
    size_t at = 0;
    for (Token id : tokens) {
        std::string piece = t.piece(id, true);
        // SPM vocabularies begin a run of text with a space of their own.
        if (text.compare(at, piece.size(), piece) != 0 && !piece.empty() && piece[0] == ' ') piece.erase(0, 1);
        if (text.compare(at, piece.size(), piece) != 0) return {};
        at += piece.size();
        ends.push_back(int64_t(at));
    }
    return at == text.size() ? ends : std::vector<int64_t>{};
}

// Only the template may write control tokens. Where a message contains the text of one, it is encoded apart, as plain text.
Tokens encode(const TokenizerImpl& t, const std::string& text, int64_t begin, int64_t end, const std::vector<Span>& content) {
    Tokens out;
    auto piece = [&](int64_t from, int64_t to, bool plain) {
        if (from >= to) return;
        const std::string_view part = std::string_view(text).substr(size_t(from), size_t(to - from));
        if (plain) t.encode(part, out);
        else t.encode_template(part, out);
    };
    int64_t at = begin;
    for (const Span& s : content) {
        const int64_t from = std::max(s.begin, begin), to = std::min(s.end, end);
        if (from >= to || from < at) continue;
        Tokens trial;
        t.encode_template(std::string_view(text).substr(size_t(from), size_t(to - from)), trial);
        if (std::none_of(trial.begin(), trial.end(), [&](Token id) { return is_control(t, id); })) continue;
        piece(at, from, false);
        piece(from, to, true);
        at = to;
    }
    piece(at, end, false);
    return out;
}

}  // namespace text_room

std::shared_ptr<const TokenizerImpl> load_tokenizer(const std::string& path) {
    if (is_folder(path)) {
        if (!exists(path + "/tokenizer.json")) fail(Errc::io, "load tokenizer ", path, ": there is no tokenizer.json");
        return text_room::load_folder(path + "/tokenizer.json", path);
    }
    if (path.size() > 5 && path.substr(path.size() - 5) == ".json") {
        const size_t slash = path.find_last_of('/');
        return text_room::load_folder(path, slash == path.npos ? "." : path.substr(0, slash));
    }
    const auto tokenizer = gguf_tokenizer(*Gguf::open(path));
    if (!tokenizer) fail(Errc::format, "load tokenizer ", path, ": the file has no vocabulary");
    return tokenizer;
}

Rendered render_chat(const TokenizerImpl& t, std::span<const Message> messages, bool reply_next) {
    namespace room = text_room;
    const auto chat = room::parsed(t);
    RenderedTemplate whole = chat->render(room::variables(t, messages, reply_next));
    const std::vector<room::Span> turns = room::assistant_turns(*chat, t, messages, whole);
    const int64_t size = int64_t(whole.text.size());
    Rendered out;
    out.text = whole.text;
    out.tokens = room::encode(t, whole.text, 0, size, whole.content);
    const std::vector<int64_t> ends = room::token_ends(t, whole.text, out.tokens);
    if (!ends.empty() || out.tokens.empty()) {
        out.trained.assign(out.tokens.size(), 0);
        // A token belongs to a turn when it ends inside it: its first byte may be a blank that the template wrote.
        for (size_t i = 0; i < ends.size(); ++i)
            for (const room::Span& s : turns) out.trained[i] = out.trained[i] || (ends[i] > s.begin && ends[i] <= s.end);
        return out;
    }
    // The text cannot be followed token by token: encode the turns apart, so that their tokens are known for certain.
    out.tokens.clear();
    int64_t at = 0;
    auto append = [&](int64_t end, uint8_t trained) {
        const Tokens part = room::encode(t, whole.text, at, end, whole.content);
        out.tokens.insert(out.tokens.end(), part.begin(), part.end());
        out.trained.resize(out.tokens.size(), trained);
        at = end;
    };
    for (const room::Span& s : turns) {
        if (s.begin < at) continue;
        append(s.begin, 0);
        append(s.end, 1);
    }
    append(size, 0);
    return out;
}

}  // namespace qlora
