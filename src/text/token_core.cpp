// token_core.cpp - see token_core.h.
#include "src/text/token_core.h"

#include "src/base/file.h"

#include <algorithm>
#include <array>

namespace qlora { inline namespace QLORA_ABI {
namespace token_core_room {

// An added token longer than this is refused: the trie walks at most so far from every position, which keeps encoding
// linear.
constexpr size_t longest_added_token = 1024;

// GPT-2 writes bytes as printable characters: those of Latin-1 that print stay, the other 68 become U+0100, U+0101, ...
struct ByteAlphabet {
    std::array<char32_t, 256> code{};
    std::unordered_map<char32_t, uint8_t> byte;
    ByteAlphabet() {
        char32_t next = 0x100;
        for (int b = 0; b < 256; ++b) {
            const bool prints = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            code[size_t(b)] = prints ? char32_t(b) : next++;
            byte[code[size_t(b)]] = uint8_t(b);
        }
    }
};

inline const ByteAlphabet& byte_alphabet() {
    static const ByteAlphabet alphabet;
    return alphabet;
}

inline bool word_before(std::string_view text, size_t at) {            // is the character before `at` part of a word?
    size_t from = at;
    while (from > 0 && at - from < 4) {
        --from;
        if ((uint8_t(text[from]) & 0xC0) != 0x80) break;
    }
    const Utf8Char c = utf8_at(text, from);
    return from < at && (c.code == '_' || (char_class(c.code) & (char_letter | char_number | char_mark)));
}

inline bool word_after(std::string_view text, size_t at) {
    const Utf8Char c = utf8_at(text, at);
    return c.bytes && (c.code == '_' || (char_class(c.code) & (char_letter | char_number | char_mark)));
}

inline size_t skip_space(std::string_view text, size_t at) {
    for (Utf8Char c = utf8_at(text, at); c.bytes && (char_class(c.code) & char_space); c = utf8_at(text, at))
        at += size_t(c.bytes);
    return at;
}

inline size_t skip_space_back(std::string_view text, size_t at, size_t stop) {
    while (at > stop) {
        size_t from = at - 1;
        while (from > stop && (uint8_t(text[from]) & 0xC0) == 0x80) --from;
        const Utf8Char c = utf8_at(text, from);
        if (from + size_t(c.bytes) != at || !(char_class(c.code) & char_space)) break;
        at = from;
    }
    return at;
}

// Two vocabularies of the same tokens cut text alike where this is the same.
uint64_t hash_of_rules(const Vocabulary& v) {
    std::string all = str(int(v.kind), v.add_space_prefix, v.ignore_merges, ' ', v.pre, ' ', v.rules, '\n');
    if (v.pieces)
        all += str(v.pieces, ' ', v.remove_extra_spaces, v.byte_fallback, v.prefix_once, ' ',
                   hash_bytes(v.charsmap.data(), int64_t(v.charsmap.size())), '\n');
    if (v.rank_of_result) all += "ranks\n";
    for (const std::string& merge : v.merges) all += merge + '\n';
    all.append(reinterpret_cast<const char*>(v.scores.data()), v.scores.size() * sizeof(float));
    return hash_bytes(all.data(), int64_t(all.size()));
}

}  // namespace token_core_room

TokenTrie::TokenTrie(const std::vector<std::pair<std::string_view, int32_t>>& strings) {
    size_t bytes = 0;
    for (const auto& [text, value] : strings) bytes += text.size();
    edges_ = MergeTable(bytes);
    values_.push_back(-1);
    for (const auto& [text, value] : strings) {
        if (text.empty()) continue;                    // would match everywhere
        int32_t node = 0;
        for (char c : text) {
            MergeRule edge = edges_(node, uint8_t(c));
            if (edge.rank < 0) {
                edge = {0, int32_t(values_.size())};
                edges_.add(node, uint8_t(c), edge);
                values_.push_back(-1);
            }
            node = edge.id;
        }
        values_[size_t(node)] = value;
        starts_[uint8_t(text[0])] = true;
    }
}

TokenTrie::Match TokenTrie::longest(std::string_view text, size_t at) const {
    Match best;
    if (!starts_[uint8_t(text[at])]) return best;
    int32_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
        const MergeRule edge = edges_(node, uint8_t(text[i]));
        if (edge.rank < 0) break;
        node = edge.id;
        if (values_[size_t(node)] >= 0) best = {values_[size_t(node)], i + 1 - at};
    }
    return best;
}

std::string byte_level_text(std::string_view bytes) {
    std::string out;
    for (char c : bytes) utf8_append(out, token_core_room::byte_alphabet().code[uint8_t(c)]);
    return out;
}

std::string byte_level_bytes(std::string_view text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
        const Utf8Char c = utf8_at(text, at);
        const auto found = token_core_room::byte_alphabet().byte.find(c.code);
        if (!c.valid || found == token_core_room::byte_alphabet().byte.end()) return std::string(text);
        out += char(found->second);
        at += size_t(c.bytes);
    }
    return out;
}

int byte_of_token(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return -1;
    const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
    const int high = digit(token[3]), low = digit(token[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string token_of_byte(int byte) {
    static constexpr char digit[] = "0123456789ABCDEF";
    return std::string("<0x") + digit[byte / 16] + digit[byte % 16] + ">";
}

std::span<const std::string_view> reply_end_names() {
    static constexpr std::string_view names[] = {"<|im_end|>",
                                                 "<|eot_id|>",
                                                 "<|eom_id|>",
                                                 "<|end_of_text|>",
                                                 "<|endoftext|>",
                                                 "<|end|>",
                                                 "<end_of_turn>",
                                                 "<|end_of_turn|>",
                                                 "<|eot|>",
                                                 "<EOT>",
                                                 "<|EOT|>",
                                                 "<|return|>",
                                                 "<|END_OF_TURN_TOKEN|>",
                                                 "<｜end▁of▁sentence｜>",
                                                 "<end_of_utterance>"};
    return names;
}

bool ends_reply_by_name(std::string_view token) {
    const auto names = reply_end_names();
    return std::find(names.begin(), names.end(), token) != names.end();
}

std::string replace_all(std::string text, std::string_view from, std::string_view to, size_t most) {
    if (from.empty() || text.find(from) == std::string::npos) return text;
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    size_t at = 0;
    for (size_t hit = text.find(from); hit != std::string::npos; hit = text.find(from, at)) {
        out.append(text, at, hit - at).append(to);
        check_grown(out.size(), most);
        at = hit + from.size();
    }
    return out.append(text, at);
}

WordScanner scan_before_spaces(const std::vector<std::string>& tokens) {
    constexpr std::string_view space = "\xE2\x96\x81";
    std::vector<char> joined(256, 0);    // last bytes of the characters that some token has right before a space
    for (const std::string& token : tokens)
        for (size_t hit = token.find(space, 1); hit != std::string::npos; hit = token.find(space, hit + 1))
            if (hit < 3 || token.compare(hit - 3, 3, space) != 0) joined[uint8_t(token[hit - 1])] = 1;
    return [joined, space](std::string_view text, size_t at) {
        for (size_t hit = text.find(space, at + 1); hit != std::string_view::npos; hit = text.find(space, hit + 1)) {
            const bool run = hit >= at + 3 && text.compare(hit - 3, 3, space) == 0;
            if (!run && !joined[uint8_t(text[hit - 1])]) return hit;
        }
        return text.size();
    };
}

TokenCore::TokenCore(Vocabulary vocabulary, DecodeRules decode, std::string_view where)
    : where_(where), vocabulary_(std::move(vocabulary)), decode_(std::move(decode)) {
    Vocabulary& v = vocabulary_;
    const size_t count = v.tokens.size();
    if (count == 0 || count > size_t(INT32_MAX) / 2)
        fail(Errc::format, where, ": a vocabulary of ", count, " tokens; the file has no usable tokenizer");
    if (!v.types.empty() && v.types.size() != count)
        fail(Errc::format, where, ": ", v.types.size(), " token types for ", count, " tokens");
    if (!v.scores.empty() && v.scores.size() != count)
        fail(Errc::format, where, ": ", v.scores.size(), " token scores for ", count, " tokens");
    ids_.reserve(count);
    for (size_t i = 0; i < count; ++i) ids_[v.tokens[i]] = Token(i);
    check_ends();
    // Files name other tokens beyond the vocabulary now and then (a padding id of a larger embedding): such a token
    // does not exist.
    for (Token* id : {&v.bos, &v.unk, &v.pad})
        if (*id < 0 || size_t(*id) >= count) *id = -1;
    bos = v.bos;
    eos = v.eos;
    add_bos = v.add_bos && bos >= 0;
    add_eos = v.add_eos && eos >= 0;
    rules = token_core_room::hash_of_rules(v);
    notes = std::move(v.notes);
    chat_template = v.chat_template;
    if (bos >= 0) bos_text = v.tokens[size_t(bos)];
    if (eos >= 0) eos_text = v.tokens[size_t(eos)];
    collect_end_of_reply();
    // What text without a token becomes must not be able to begin or end one: then it becomes nothing.
    if (v.unk >= 0 &&
        (v.unk == bos || std::find(end_of_reply.begin(), end_of_reply.end(), v.unk) != end_of_reply.end()))
        v.unk = -1;
    if (v.unk >= 0 && type_of(v.unk) == Vocabulary::Type::control) v.types[size_t(v.unk)] = Vocabulary::Type::unknown;
    std::vector<AddedToken> added;
    for (size_t i = 0; i < v.types.size(); ++i) {
        const Vocabulary::Type type = v.types[i];
        const bool control = type == Vocabulary::Type::control || type == Vocabulary::Type::unknown;
        if (control || type == Vocabulary::Type::user_defined) added.push_back({Token(i), control});
    }
    set_added(std::move(added));
}

// A model whose end is a token that does not exist would never stop.
void TokenCore::check_ends() const {
    const auto check = [&](Token id) {
        if (id >= size())
            fail(Errc::format, where_, ": token ", id, " is said to end a text, the vocabulary has ", size(),
                 " tokens");
    };
    check(vocabulary_.eos);
    check(vocabulary_.eot);
    for (const Token id : vocabulary_.ends) check(id);
}

// A token with such a name is a control token whatever the file says: user text must not be able to end a turn.
void TokenCore::collect_end_of_reply() {
    Vocabulary& v = vocabulary_;
    const auto add = [&](Token id) {
        if (id >= 0 && id < Token(v.tokens.size()) &&
            std::find(end_of_reply.begin(), end_of_reply.end(), id) == end_of_reply.end())
            end_of_reply.push_back(id);
    };
    add(v.eos);
    add(v.eot);
    for (Token id : v.ends) add(id);
    for (size_t i = 0; i < v.tokens.size(); ++i)
        if ((v.tokens[i][0] == '<') && ends_reply_by_name(v.tokens[i])) {
            add(Token(i));
            if (v.types.empty()) v.types.assign(v.tokens.size(), Vocabulary::Type::normal);
            v.types[i] = Vocabulary::Type::control;
        }
}

void TokenCore::set_added(std::vector<AddedToken> added) {
    using Strings = std::vector<std::pair<std::string_view, int32_t>>;
    added_ = std::move(added);
    Strings all[2], text_only[2];
    for (size_t i = 0; i < added_.size(); ++i) {
        std::string_view text = vocabulary_.tokens[size_t(added_[i].id)];
        if (text.size() > token_core_room::longest_added_token)
            fail(Errc::format, where_, ": the special token ", added_[i].id, " has ", text.size(), " bytes; ",
                 token_core_room::longest_added_token, " are the most");
        if (added_[i].normalized) {
            NormalText normal(text);
            normalize(normal);
            text = normal_forms_[added_[i].id] = normal.text();
        }
        all[added_[i].normalized].emplace_back(text, int32_t(i));
        if (!added_[i].control) text_only[added_[i].normalized].emplace_back(text, int32_t(i));
    }
    raw_ = {TokenTrie(all[false]), TokenTrie(text_only[false])};
    normal_ = {TokenTrie(all[true]), TokenTrie(text_only[true])};
}

bool TokenCore::is_control(Token id) const {
    const Vocabulary::Type type = type_of(id);
    return type == Vocabulary::Type::control || type == Vocabulary::Type::unknown;
}

// Control tokens that touch a literal range are text. literal: sorted; those before `from` may be left out.
TokenCore::Found TokenCore::find_added(const Added& table, const Stretch& stretch, size_t from, bool controls,
                                       Literal literal) const {
    const std::string_view text = stretch.text;
    for (size_t at = from; at < text.size() && !table.all.empty(); ++at) {
        TokenTrie::Match match = (controls ? table.all : table.text_only).longest(text, at);
        if (match.value < 0) continue;
        if (added_[size_t(match.value)].control) {
            const NormalText* normal = stretch.normal;
            const int64_t first = int64_t(stretch.begin + (normal ? normal->from(at) : at)),
                          last = int64_t(stretch.begin +
                                         (normal ? normal->until(at + match.length) : at + match.length));
            while (!literal.empty() && literal.front().end <= first) literal = literal.subspan(1);
            if (!literal.empty() && literal.front().begin < last) match = table.text_only.longest(text, at);
            if (match.value < 0) continue;
        }
        const AddedToken& token = added_[size_t(match.value)];
        size_t begin = at, end = at + match.length;
        if (token.single_word &&
            (token_core_room::word_before(text, begin) || token_core_room::word_after(text, end))) {
            at = end - 1;                              // part of a word: no token begins inside it either
            continue;
        }
        if (token.left_strip) begin = token_core_room::skip_space_back(text, begin, from);
        if (token.right_strip) end = token_core_room::skip_space(text, end);
        return {begin, end, &token};
    }
    return {text.size(), text.size(), nullptr};
}

void TokenCore::split(std::string_view text, bool controls, Literal literal, Tokens& out,
                      std::vector<int64_t>* starts) const {
    // Positions are 32 bits wide while merging, and a space may grow to three bytes.
    if (text.size() > size_t(INT32_MAX) / 4)
        fail(Errc::argument, "encode: ", text.size(), " bytes in one text; ", INT32_MAX / 4,
             " are the most: cut it into pieces");
    for (size_t at = 0; at < text.size();) {
        while (!literal.empty() && literal.front().end <= int64_t(at)) literal = literal.subspan(1);
        const Found found = find_added(raw_, {text}, at, controls, literal);
        if (found.begin > at) add_segment(text.substr(at, found.begin - at), at, controls, literal, out, starts);
        if (found.token) {
            out.push_back(found.token->id);
            if (starts) starts->push_back(int64_t(found.begin));
        }
        at = found.end;
    }
}

int64_t TokenCore::count_control(std::string_view text) const {
    const auto count = [this](const Added& table, const Stretch& stretch, const auto& between) {
        int64_t found_controls = 0;
        for (size_t at = 0; at < stretch.text.size();) {
            const Found found = find_added(table, stretch, at, true, {});
            if (found.begin > at) found_controls += between(stretch.text.substr(at, found.begin - at));
            found_controls += found.token && found.token->control;
            at = found.end;
        }
        return found_controls;
    };
    return count(raw_, {text}, [&](std::string_view segment) {
        if (normal_.all.empty()) return int64_t(0);
        NormalText normal(segment);
        normalize(normal);
        return count(normal_, {normal.text(), 0, &normal}, [](std::string_view) { return int64_t(0); });
    });
}

// A segment without raw tokens: normalized as a whole, then cut at the normalized tokens.
void TokenCore::add_segment(std::string_view segment, size_t begin, bool controls, Literal literal, Tokens& out,
                            std::vector<int64_t>* starts) const {
    NormalText normal(segment);
    normalize(normal);
    const Stretch stretch{normal.text(), begin, &normal};
    for (size_t at = 0; at < stretch.text.size();) {
        const Found found = find_added(normal_, stretch, at, controls, literal);
        if (found.begin > at) {
            const size_t before = out.size();
            const Stretch piece{stretch.text.substr(at, found.begin - at), begin, &normal};
            encode_segment(piece.text, begin + at == 0, out);
            if (starts) add_starts(piece, at, std::span(out).subspan(before), *starts);
        }
        if (found.token) {
            out.push_back(found.token->id);
            if (starts) starts->push_back(int64_t(begin + normal.from(found.begin)));
        }
        at = found.end;
    }
}

void TokenCore::encode(std::string_view text, Tokens& out) const { split(text, false, {}, out, nullptr); }
void TokenCore::encode_template(std::string_view text, Tokens& out) const { split(text, true, {}, out, nullptr); }
void TokenCore::encode_rendered(std::string_view text, std::span<const RenderedTemplate::Span> literal, Tokens& out,
                                std::vector<int64_t>* starts) const {
    split(text, true, literal, out, starts);
}

Tokens encode_text(const TokenizerImpl& tokenizer, std::string_view text, bool bos, bool control) {
    Tokens tokens;
    if (control) tokenizer.encode_template(text, tokens);
    else tokenizer.encode(text, tokens);
    if (bos && tokenizer.bos >= 0 && (!control || tokens.empty() || tokens[0] != tokenizer.bos))
        tokens.insert(tokens.begin(), tokenizer.bos);
    return tokens;
}

std::string TokenCore::piece(Token id, bool control) const {
    if (id < 0 || int64_t(id) >= size())
        fail(Errc::argument, where_, ": token ", id, " is not one of the ", size(), " of this vocabulary");
    if (is_control(id) && !control) return {};
    const std::string& text = spelled(id);
    if (decode_.joined) return " " + text;
    return is_control(id) && !normal_forms_.contains(id) ? text : covered(id);
}

const std::string& TokenCore::spelled(Token id) const {
    const auto normal = normal_forms_.find(id);
    return normal == normal_forms_.end() ? vocabulary_.tokens[size_t(id)] : normal->second;
}

std::string TokenCore::covered(Token id) const {
    const std::string& text = spelled(id);
    if (decode_.byte_level) return type_of(id) == Vocabulary::Type::user_defined ? text : byte_level_bytes(text);
    if (decode_.byte_tokens) {
        if (const int byte = byte_of_token(text); byte >= 0) return std::string(1, char(byte));
    }
    std::string out = text;
    for (const auto& [from, to] : decode_.replace) out = replace_all(std::move(out), from, to, most_grown(text.size()));
    return out;
}

std::string TokenCore::decode(std::span<const Token> tokens, bool control) const {
    std::string out;
    for (Token id : tokens) out += piece(id, control);
    int64_t left = 0, right = 0;
    const int64_t length = int64_t(out.size());
    while (left < decode_.strip_left && left < length && out[size_t(left)] == ' ') ++left;
    while (right < decode_.strip_right && left + right < length && out[size_t(length - 1 - right)] == ' ') ++right;
    return left + right ? out.substr(size_t(left), size_t(length - left - right)) : out;
}

Token TokenCore::id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
}

}}  // namespace qlora
